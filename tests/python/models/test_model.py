"""The whole model: unit rows, missing modalities, parameter groups, saving."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model

from mover.config import DataConfig, ModelConfig, OptimizerConfig
from mover.models import MoverModel, unit_rows

MODALITIES = ("text", "video", "audio")


def _batch(rows: int = 4) -> dict[str, Any]:
    ids = torch.randint(5, 50, (rows, 8))
    return {
        "text": {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        "video": {"pixels": torch.randint(0, 256, (rows, 3, 3, 32, 32), dtype=torch.uint8)},
        "audio": {"waveform": 0.1 * torch.randn(rows, 16000), "length": torch.full((rows,), 16000)},
        "present": {name: torch.ones(rows, dtype=torch.bool) for name in MODALITIES},
    }


@pytest.fixture
def model(model_config: ModelConfig, data_config: DataConfig) -> MoverModel:
    return MoverModel(model_config, data_config, MODALITIES, vocab_size=50)


def test_outputs_are_unit_rows_in_float32(model: MoverModel) -> None:
    batch = _batch()
    for context in (torch.autocast("cpu", enabled=False), torch.autocast("cpu", dtype=torch.bfloat16)):
        with context:
            out = model(batch)
        assert list(out) == list(MODALITIES)
        for z in out.values():
            assert z.shape == (4, 24)
            assert z.dtype == torch.float32
            torch.testing.assert_close(z.norm(dim=1), torch.ones(4), atol=1e-6, rtol=0)


def test_rows_do_not_depend_on_their_batch(model: MoverModel) -> None:
    batch = _batch()
    together = model.eval()(batch)
    for name in MODALITIES:
        one = model.encode(name, {key: value[2:3] for key, value in batch[name].items()})
        torch.testing.assert_close(one[0], together[name][2], atol=1e-5, rtol=0)


def _with_gaps(batch: dict[str, Any], filling: float) -> dict[str, Any]:
    """Row 1 has no text, rows 0 and 3 no video, row 2 no sound; what stands there is `filling`."""
    for name, rows in (("text", [1]), ("video", [0, 3]), ("audio", [2])):
        batch["present"][name][rows] = False
        for values in batch[name].values():
            values[rows] = torch.tensor(filling).to(values.dtype)
    return batch


def test_towers_see_only_the_rows_that_are_there(model: MoverModel) -> None:
    seen: dict[str, int] = {}
    for name, tower in model.towers.items():
        tower.register_forward_pre_hook(
            lambda _, __, inputs, name=name: seen.update({name: len(next(iter(inputs.values())))}), with_kwargs=True
        )
    batch = _with_gaps(_batch(), 0.0)
    out = model(batch)
    assert seen == {"text": 3, "video": 2, "audio": 3}
    weights = {name: torch.randn(4, 24) for name in MODALITIES}
    sum((out[name] * weights[name]).sum() for name in MODALITIES).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    total = torch.zeros(())
    for name in MODALITIES:  # one row at a time, and only those that are there
        for row in range(4):
            if not batch["present"][name][row]:
                assert torch.equal(out[name][row], torch.eye(24)[0])
                continue
            alone = model.encode(name, {key: value[row : row + 1] for key, value in batch[name].items()})[0]
            torch.testing.assert_close(out[name][row], alone, atol=1e-5, rtol=0)
            total = total + (alone * weights[name][row]).sum()
    total.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(grads[name], p.grad, rtol=1e-3, atol=1e-5)


def test_what_stands_in_for_absent_rows_changes_nothing(model: MoverModel) -> None:
    results = []
    for filling in (0.0, 1.0):
        torch.manual_seed(3)
        out = model(_with_gaps(_batch(), filling))
        model.zero_grad()
        sum(z.pow(3).sum() for z in out.values()).backward()
        results.append([*out.values(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_modality_that_no_row_has(model: MoverModel) -> None:
    batch = _batch()
    batch["present"]["audio"][:] = False
    batch["audio"]["waveform"][:] = torch.nan
    out = model(batch)
    assert torch.equal(out["audio"], torch.eye(24)[:1].expand(4, 24))
    sum(z.pow(3).sum() for z in out.values()).backward()
    for name, p in model.named_parameters():
        assert (p.grad is None) == ("audio" in name), name


def test_every_parameter_gets_a_finite_gradient(model: MoverModel) -> None:
    out = model(_batch())
    weights = {name: torch.randn(4, 24) for name in MODALITIES}
    sum((out[name] * weights[name]).sum() for name in MODALITIES).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_only_the_modalities_of_the_run(model_config: ModelConfig, data_config: DataConfig) -> None:
    model = MoverModel(model_config, data_config, ("text", "audio"), vocab_size=50)
    batch = _batch()
    del batch["video"], batch["present"]["video"]
    assert list(model(batch)) == ["text", "audio"]
    assert not any("video" in name for name in model.state_dict())


def test_unknown_modality_is_refused(model_config: ModelConfig, data_config: DataConfig) -> None:
    with pytest.raises(ValueError, match="text, video, audio, got 'smell'"):
        MoverModel(model_config, data_config, ("text", "smell"), vocab_size=50)


def test_parameter_groups_cover_each_parameter_once(model: MoverModel) -> None:
    config = OptimizerConfig(lr=1e-3, tower_lr=1e-5, weight_decay=0.02)
    frozen = model.towers["text"].roberta.embeddings.word_embeddings.weight
    frozen.requires_grad_(False)
    groups = model.parameter_groups(config)
    listed = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in listed}) == len(listed)
    assert {id(p) for p in listed} == {id(p) for p in model.parameters() if p is not frozen}
    assert len({group["name"] for group in groups}) == len(groups)
    torch.optim.AdamW(groups)


def test_parameter_groups_have_the_right_rate_and_decay(model: MoverModel) -> None:
    groups = model.parameter_groups(OptimizerConfig(lr=1e-3, tower_lr=1e-5, weight_decay=0.02))
    settings = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    expected = {
        "heads.audio.weight": (1e-3, 0.02),
        "towers.video.temporal.layers.0.qkv.weight": (1e-3, 0.02),
        "towers.video.temporal.layers.0.qkv.bias": (1e-3, 0.0),
        "towers.video.vit.layernorm.weight": (1e-5, 0.0),
        "towers.video.vit.embeddings.cls_token": (1e-5, 0.0),
        "towers.text.roberta.encoder.layer.0.output.dense.weight": (1e-5, 0.02),
        "towers.text.roberta.encoder.layer.0.output.dense.bias": (1e-5, 0.0),
        "towers.audio.beats.encoder.pos_conv.0.weight_v": (1e-5, 0.02),
        "towers.audio.beats.encoder.pos_conv.0.weight_g": (1e-5, 0.0),
        "towers.audio.beats.encoder.layers.1.self_attn.grep_a": (1e-5, 0.0),
    }
    for name, parameter in model.named_parameters():
        rate = 1e-3 if name.startswith("heads") or "temporal" in name else 1e-5
        assert settings[id(parameter)][0] == rate
        if parameter.ndim == 1:
            assert settings[id(parameter)][1] == 0
        if name in expected:
            assert settings[id(parameter)] == expected.pop(name)
    assert not expected


def test_towers_learn_like_heads_unless_told(model: MoverModel) -> None:
    assert {group["lr"] for group in model.parameter_groups(OptimizerConfig(lr=2e-3))} == {2e-3}


def test_saved_as_safetensors_and_read_back(
    model: MoverModel, model_config: ModelConfig, data_config: DataConfig, tmp_path: Path
) -> None:
    save_model(model, str(tmp_path / "model.safetensors"))
    other = MoverModel(model_config, data_config, MODALITIES, vocab_size=50)
    load_model(other, str(tmp_path / "model.safetensors"))
    batch = _batch()
    ours, theirs = model.eval()(batch), other.eval()(batch)
    assert all(torch.equal(ours[name], theirs[name]) for name in MODALITIES)


def test_learns_to_match_colours_and_pitches_to_words(model: MoverModel) -> None:
    rows = 6
    batch = _batch(rows)
    labels = torch.arange(rows)
    batch["text"]["input_ids"][:, 1:] = 5 + labels[:, None]
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255]])
    batch["video"]["pixels"] = colours.to(torch.uint8)[:, None, :, None, None].expand(-1, 3, -1, 32, 32)
    time = torch.arange(16000) / 16000
    batch["audio"]["waveform"] = 0.3 * torch.sin(2 * torch.pi * 250 * 1.8 ** labels[:, None] * time)
    optimizer = torch.optim.AdamW(model.parameter_groups(OptimizerConfig(lr=3e-3)))
    for _ in range(40):
        z = model(batch)
        losses = [torch.nn.functional.cross_entropy(10 * z["text"] @ z[name].T, labels) for name in ("video", "audio")]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    z = model.eval()(batch)
    for name in ("video", "audio"):
        assert torch.equal((z["text"] @ z[name].T).argmax(1), labels)


def test_unit_rows() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e15, 1e15]], requires_grad=True)
    out = unit_rows(x)
    half = 0.5**0.5
    torch.testing.assert_close(out, torch.tensor([[0.6, 0.8], [1.0, 0.0], [half, half]]))
    out[:, 1].sum().backward()
    torch.testing.assert_close(x.grad[0], torch.tensor([-0.096, 0.072]))
    assert not x.grad[1].any()


def test_importing_the_models_does_not_import_transformers() -> None:
    code = "import sys, mover.models; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_stays_so(bad: float) -> None:
    x = torch.eye(3)
    x[1, 2] = bad
    out = unit_rows(x)
    assert bool(torch.isnan(out[1]).any())
    assert torch.equal(out[[0, 2]], x[[0, 2]])
