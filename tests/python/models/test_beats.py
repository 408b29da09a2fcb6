"""The BEATs network: sizes and keys, positions, gate, masks, and the whole against a plain float64 version."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mover.config import AudioTowerConfig
from mover.errors import UserError
from mover.models.audio import AudioEncoder
from mover.models.beats import (
    Beats,
    BeatsConfig,
    PositionalConvolution,
    _GatedLogits,
    explicit_attention,
    fused_attention,
    relative_buckets,
)

TINY = BeatsConfig(embed_dim=8, layers=2, hidden_size=16, intermediate_size=32, heads=2, conv_pos=16, conv_pos_groups=4)


def _trained(config: BeatsConfig = TINY) -> Beats:
    """A network in which no parameter sits at a value that hides it, such as zero or one."""
    beats = Beats(config).eval()
    with torch.no_grad():
        for parameter in beats.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return beats


def test_full_size_has_the_official_keys_and_shapes() -> None:
    with torch.device("meta"):
        beats = Beats(BeatsConfig())
    expected: dict[str, tuple[int, ...]] = {
        "post_extract_proj.weight": (768, 512),
        "post_extract_proj.bias": (768,),
        "patch_embedding.weight": (512, 1, 16, 16),
        "layer_norm.weight": (512,),
        "layer_norm.bias": (512,),
        "encoder.pos_conv.0.bias": (768,),
        "encoder.pos_conv.0.weight_g": (1, 1, 128),
        "encoder.pos_conv.0.weight_v": (768, 48, 128),
        "encoder.layer_norm.weight": (768,),
        "encoder.layer_norm.bias": (768,),
    }
    for i in range(12):
        layer = f"encoder.layers.{i}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            expected[f"{layer}self_attn.{name}.weight"] = (768, 768)
            expected[f"{layer}self_attn.{name}.bias"] = (768,)
        expected[f"{layer}self_attn.grep_linear.weight"] = (8, 64)
        expected[f"{layer}self_attn.grep_linear.bias"] = (8,)
        expected[f"{layer}self_attn.grep_a"] = (1, 12, 1, 1)
        expected[f"{layer}self_attn.relative_attention_bias.weight"] = (320, 12)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            expected[f"{layer}{name}.weight"] = (768,)
            expected[f"{layer}{name}.bias"] = (768,)
        expected[f"{layer}fc1.weight"] = (3072, 768)
        expected[f"{layer}fc1.bias"] = (3072,)
        expected[f"{layer}fc2.weight"] = (768, 3072)
        expected[f"{layer}fc2.bias"] = (768,)
    assert {key: tuple(value.shape) for key, value in beats.state_dict().items()} == expected
    assert len(expected) == 250
    assert sum(parameter.numel() for parameter in beats.parameters()) == 90_311_792


def test_defaults_of_the_configuration_are_the_full_size() -> None:
    full = AudioEncoder(AudioTowerConfig(layers=1, hidden_size=48, intermediate_size=8), 16000).beats.config
    own = BeatsConfig()
    for name in ("patch_size", "embed_dim", "heads", "conv_pos", "conv_pos_groups", "buckets", "max_distance"):
        assert getattr(full, name) == getattr(own, name)
    config = AudioTowerConfig()
    assert (config.layers, config.hidden_size, config.intermediate_size) == (12, 768, 3072)


def test_buckets() -> None:
    known = {
        -800: 159, -400: 135, -81: 80, -80: 80, -79: 79, -1: 1, 0: 0, 1: 161, 79: 239, 80: 240, 81: 240, 100: 247,
        200: 271, 400: 295, 799: 319,
    }  # fmt: skip
    distances = torch.tensor(list(known))
    assert relative_buckets(distances).tolist() == list(known.values())
    assert relative_buckets(torch.tensor([-100_000, 100_000])).tolist() == [159, 319]


def test_relative_bias_is_the_table_at_the_bucket_of_j_minus_i() -> None:
    config = BeatsConfig(**{**vars(TINY), "buckets": 16, "max_distance": 10})
    encoder = _trained(config).encoder
    table = encoder.layers[0].self_attn.relative_attention_bias.weight
    for length in (1, 2, 9, 30):  # shorter and longer than max_distance
        i = torch.arange(length)
        buckets = relative_buckets(i[None, :] - i[:, None], 16, 10)
        assert torch.equal(encoder.relative_bias(length), table[buckets].permute(2, 0, 1))


def test_all_layers_share_one_table() -> None:
    beats = Beats(TINY)
    tables = {layer.self_attn.relative_attention_bias.weight.data_ptr() for layer in beats.encoder.layers}
    assert len(tables) == 1


def test_gate_against_a_loop() -> None:
    attention = _trained().encoder.layers[1].self_attn
    q = torch.randn(3, 2, 5, 8)
    gate = attention.gate(q)
    weight, bias = (p.detach().double() for p in (attention.grep_linear.weight, attention.grep_linear.bias))
    for b in range(3):
        for h in range(2):
            for i in range(5):
                eight = [float(weight[o] @ q[b, h, i].double() + bias[o]) for o in range(8)]
                first, second = (1 / (1 + math.exp(-sum(part))) for part in (eight[:4], eight[4:]))
                expected = first * (second * attention.grep_a[0, h].item() - 1) + 2
                assert gate[b, h, i].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kernel", [1, 15, 16])
def test_positional_convolution_is_weight_norm_over_taps(kernel: int) -> None:
    convolution = PositionalConvolution(16, kernel, 4)
    torch.nn.init.normal_(convolution.weight_g)
    torch.nn.init.normal_(convolution.bias)
    plain = torch.nn.Conv1d(16, 16, kernel, padding=kernel // 2, groups=4)
    reference = torch.nn.utils.parametrizations.weight_norm(plain, dim=2)
    reference.parametrizations.weight.original0.data = convolution.weight_g.data
    reference.parametrizations.weight.original1.data = convolution.weight_v.data
    reference.bias.data = convolution.bias.data
    x = torch.randn(2, 11, 16)
    torch.testing.assert_close(convolution(x), reference(x.mT)[..., :11].mT)


def _attention_inputs(dtype: torch.dtype) -> list[Tensor]:
    shapes = [(2, 3, 5, 4)] * 3 + [(2, 3, 5, 1), (3, 5, 5)]
    inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    key_mask = torch.zeros(2, 1, 1, 5, dtype=dtype)
    key_mask[1, ..., 3:] = -math.inf
    return [*inputs, key_mask]


def test_logits_gradient() -> None:
    q, k, _, gate, bias, _ = _attention_inputs(torch.float64)
    mask = torch.randn(2, 1, 1, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(_GatedLogits.apply, (q, k, gate, bias, mask))


def test_both_attentions_agree() -> None:
    def run(attend: Callable[..., Tensor]) -> list[Tensor]:
        out = attend(*inputs)
        return [out, *torch.autograd.grad(out.sin().sum(), inputs[:5])]

    inputs = _attention_inputs(torch.float64)
    for explicit, fused in zip(run(explicit_attention), run(fused_attention), strict=True):
        torch.testing.assert_close(explicit, fused)


def naive(state: dict[str, Tensor], config: BeatsConfig, features: Tensor, frames: int) -> Tensor:
    """One spectrogram (T, 128) to its valid tokens, by the definition, without a mask: what is outside is cut."""
    p = {key: value.double() for key, value in state.items()}
    width, heads = config.hidden_size, config.heads

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]
        )

    tokens = []
    for t in range(frames // 16):
        for band in range(8):
            patch = features[16 * t : 16 * t + 16, 16 * band : 16 * band + 16].double()
            tokens.append((p["patch_embedding.weight"][:, 0] * patch).sum((1, 2)))
    x = linear("post_extract_proj", norm("layer_norm", torch.stack(tokens)))
    length = len(x)

    v, g = p["encoder.pos_conv.0.weight_v"], p["encoder.pos_conv.0.weight_g"]
    taps = torch.stack([v[..., k] * g[0, 0, k] / v[..., k].norm() for k in range(config.conv_pos)], -1)
    convolved = torch.zeros_like(x)
    per_group = width // config.conv_pos_groups
    for i in range(length):
        for k in range(config.conv_pos):
            j = i + k - config.conv_pos // 2
            if 0 <= j < length:
                for out in range(width):
                    first = out // per_group * per_group
                    convolved[i, out] += taps[out, :, k] @ x[j, first : first + per_group]
    x = norm("encoder.layer_norm", x + F.gelu(convolved + p["encoder.pos_conv.0.bias"]))

    alpha = (2 * config.layers) ** 0.25
    for number in range(config.layers):
        name = f"encoder.layers.{number}"
        q, k, v = (linear(f"{name}.self_attn.{part}_proj", x).view(length, heads, -1) for part in "qkv")
        mixed = torch.zeros(length, heads, width // heads, dtype=torch.float64)
        table = p[f"{name}.self_attn.relative_attention_bias.weight"]
        for h in range(heads):
            halves = torch.sigmoid(linear(f"{name}.self_attn.grep_linear", q[:, h]).view(length, 2, 4).sum(-1))
            gate = halves[:, 0] * (halves[:, 1] * p[f"{name}.self_attn.grep_a"][0, h, 0, 0] - 1) + 2
            for i in range(length):
                distances = torch.arange(length) - i
                logits = k[:, h] @ q[i, h] / math.sqrt(width // heads)
                logits = logits + gate[i] * table[relative_buckets(distances), h]
                mixed[i, h] = logits.softmax(0) @ v[:, h]
        x = norm(f"{name}.self_attn_layer_norm", alpha * x + linear(f"{name}.self_attn.out_proj", mixed.flatten(1)))
        hidden = F.gelu(linear(f"{name}.fc1", x))
        x = norm(f"{name}.final_layer_norm", alpha * x + linear(f"{name}.fc2", hidden))
    return x


@pytest.mark.parametrize("frames", [16, 31, 33])
def test_network_matches_the_plain_version(frames: int) -> None:
    beats = _trained()
    features = torch.randn(2, 40, 128)
    with torch.no_grad():
        tokens, valid = beats(features, torch.tensor([frames, 40]))
    assert valid.sum(1).tolist() == [8 * (frames // 16), 16]
    expected = naive(beats.state_dict(), TINY, features[0], frames)
    np.testing.assert_allclose(tokens[0, valid[0]].numpy(), expected.numpy(), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("samples", "tokens"), [(16000, 48), (160000, 496), (2800, 8)])
def test_tokens_per_second(samples: int, tokens: int, audio_config: AudioTowerConfig) -> None:
    encoder = AudioEncoder(audio_config, 16000)
    out, valid = encoder.beats(encoder.filterbank(torch.zeros(1, samples)), torch.tensor([1 + (samples - 400) // 160]))
    assert out.shape == (1, tokens, 16)
    assert valid.all()


def test_padded_and_trimmed_are_the_same(audio_config: AudioTowerConfig) -> None:
    encoder = AudioEncoder(audio_config, 16000).eval()
    lengths = torch.tensor([16000, 2800, 9123, 5000])
    waveform = 0.1 * torch.randn(4, 16000)
    padded = encoder(waveform, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(waveform[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(alone[0], padded[row], atol=1e-5, rtol=0)


def test_samples_after_the_length_have_no_influence(audio_config: AudioTowerConfig) -> None:
    encoder = AudioEncoder(audio_config, 16000).eval()
    lengths = torch.tensor([9123, 0])
    waveform = torch.full((2, 16000), math.nan)
    waveform[0, :9123] = 0.1 * torch.randn(9123)
    zeros = torch.where(waveform.isnan(), 0.0, waveform)
    out = encoder(waveform, lengths)
    assert torch.equal(out, encoder(zeros, lengths))
    out.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("samples", [0, 100, 2799])
def test_rows_without_a_token_are_zero_and_finite(samples: int, audio_config: AudioTowerConfig) -> None:
    encoder = AudioEncoder(audio_config, 16000)
    out = encoder(torch.randn(2, samples), torch.full((2,), samples))
    assert out.shape == (2, 16)
    assert torch.equal(out, torch.zeros_like(out))
    tokens, _ = encoder.beats(torch.randn(2, 32, 128), torch.tensor([0, 32]))
    assert tokens.isfinite().all()
    (out.sum() + tokens.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_every_parameter_learns(audio_config: AudioTowerConfig) -> None:
    encoder = AudioEncoder(audio_config, 16000)
    encoder(0.1 * torch.randn(2, 8000), torch.tensor([8000, 6000])).pow(3).sum().backward()
    still = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


def test_dropout_only_while_training(audio_config: AudioTowerConfig) -> None:
    config = audio_config.model_copy(update={"dropout": 0.5})
    encoder = AudioEncoder(config, 16000)
    waveform, length = 0.1 * torch.randn(2, 8000), torch.tensor([8000, 8000])
    assert not torch.equal(encoder(waveform, length), encoder(waveform, length))
    encoder.eval()
    assert torch.equal(encoder(waveform, length), encoder(waveform, length))


def test_bfloat16_autocast_is_near(audio_config: AudioTowerConfig) -> None:
    encoder = AudioEncoder(audio_config, 16000)
    waveform, length = 0.1 * torch.randn(4, 8000), torch.tensor([8000, 8000, 3000, 0])
    exact = encoder(waveform, length)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(waveform, length)
    rough.float().sum().backward()
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_cpu_agree(audio_config: AudioTowerConfig) -> None:
    encoder = AudioEncoder(audio_config, 16000).eval()
    waveform, length = 0.1 * torch.randn(4, 8000), torch.tensor([8000, 8000, 3000, 0])
    expected = encoder(waveform, length)
    grads = torch.autograd.grad(expected.pow(3).sum(), list(encoder.parameters()))
    encoder.cuda()
    out = encoder(waveform.cuda(), length.cuda())
    torch.testing.assert_close(out.cpu(), expected, atol=1e-4, rtol=0)
    for ours, cpu in zip(torch.autograd.grad(out.pow(3).sum(), list(encoder.parameters())), grads, strict=True):
        torch.testing.assert_close(ours.cpu(), cpu, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, ["model.audio.hidden_size", "model.audio.heads", "16", "3"]),
        ({"conv_pos_groups": 5}, ["model.audio.conv_pos_groups", "5"]),
        ({"patch_size": 20}, ["model.audio.patch_size", "20"]),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    change: dict[str, int], words: list[str], audio_config: AudioTowerConfig
) -> None:
    with pytest.raises(UserError) as error:
        AudioEncoder(audio_config.model_copy(update=change), 16000)
    assert all(word in str(error.value) for word in words)


def test_other_sample_rates_are_refused(audio_config: AudioTowerConfig) -> None:
    with pytest.raises(UserError, match=r"data\.sample_rate.*44100"):
        AudioEncoder(audio_config, 44100)
