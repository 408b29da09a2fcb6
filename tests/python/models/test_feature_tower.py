"""The tower of features: against plain loops, padding without influence, what learns and at which rate."""

import pytest
import torch
import torch.nn.functional as F

from mover.config import FeatureTowerConfig, ImageTowerConfig, ModelConfig, OptimizerConfig
from mover.errors import UserError
from mover.models import FeatureEncoder, MoverModel, VideoEncoder
from mover.models.features import row_positions


def config(layers: int, **options: float) -> FeatureTowerConfig:
    sizes = {"input_size": 5, "hidden_size": 12, "heads": 3, "intermediate_size": 20}
    return FeatureTowerConfig(kind="features", layers=layers, **{**sizes, **options})  # type: ignore[arg-type]


def stirred(layers: int) -> FeatureEncoder:
    """A tower whose layers are no longer the identity."""
    tower = FeatureEncoder(config(layers), "model.others.depth")
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return tower.eval()


def test_without_layers_it_is_the_mean_of_mapped_rows() -> None:
    tower = stirred(0)
    features, length = torch.randn(4, 6, 5), torch.tensor([6, 1, 3, 0])
    got = tower(features, length)
    for clip in range(4):
        expected = torch.zeros(12)
        for row in features[clip, : length[clip]]:
            normal = F.layer_norm(row, (5,), tower.norm.weight, tower.norm.bias)
            expected += (tower.linear.weight @ normal + tower.linear.bias) / length[clip]
        torch.testing.assert_close(got[clip], expected)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_padding_has_no_influence_and_no_gradient(layers: int) -> None:
    tower = stirred(layers)
    features, length = torch.randn(4, 6, 5), torch.tensor([6, 1, 3, 0])
    got = tower(features, length)
    for clip, count in enumerate(length.tolist()):
        if count:
            alone = tower(features[clip : clip + 1, :count], length[clip : clip + 1])
            torch.testing.assert_close(got[clip], alone[0])
    assert not got[3].any()
    for foreign in (torch.nan, torch.inf, 1e30):
        spoilt = features.clone()
        for clip, count in enumerate(length.tolist()):
            spoilt[clip, count:] = foreign
        spoilt.requires_grad_()
        again = tower(spoilt, length)
        assert torch.equal(again, got)
        again.square().sum().backward()
        assert spoilt.grad is not None and bool(spoilt.grad.isfinite().all())
        assert not any(spoilt.grad[clip, count:].any() for clip, count in enumerate(length.tolist()))
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in tower.parameters())


def test_under_autocast() -> None:
    tower = stirred(2)
    features, length = torch.randn(4, 6, 5), torch.tensor([6, 1, 3, 0])
    with torch.autocast("cpu", torch.bfloat16):
        got = tower(features, length)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, tower(features, length), atol=0.1, rtol=0.1)


def test_layers_begin_as_the_identity_and_see_the_order() -> None:
    torch.manual_seed(1)
    plain = FeatureEncoder(config(0), "x").eval()
    deep = FeatureEncoder(config(2), "x").eval()
    deep.load_state_dict(plain.state_dict(), strict=False)
    features, length = torch.randn(3, 4, 5), torch.tensor([4, 2, 4])
    torch.testing.assert_close(deep(features, length), plain(features, length))
    tower = stirred(2)
    turned = features.flip(1)
    assert not torch.allclose(tower(features, length)[0], tower(turned, length)[0], atol=1e-3)
    assert torch.allclose(plain(features, length)[0], plain(turned, length)[0], atol=1e-6)


def test_positions_are_different_and_bounded() -> None:
    for width in (1, 2, 7, 12):
        positions = row_positions(40, width)
        assert positions.shape == (40, width) and bool((positions.abs() <= 1).all())
    distances = torch.cdist(row_positions(40, 12), row_positions(40, 12))
    assert bool((distances + 9 * torch.eye(40) > 0.1).all())


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"model\.others\.depth\.hidden_size must be a multiple of .*depth\.heads"):
        FeatureEncoder(config(1, heads=5), "model.others.depth")
    FeatureEncoder(config(0, heads=5), "model.others.depth")  # without layers there are no heads


@pytest.fixture
def model(data_config) -> MoverModel:
    image = ImageTowerConfig(kind="image", hidden_size=16, layers=2, heads=2, intermediate_size=32, trained_layers=1)
    towers = ModelConfig(embed_dim=24, others={"image": image, "depth": config(1)})
    return MoverModel(towers, data_config, ("image", "depth"))


def test_a_model_without_text(model: MoverModel) -> None:
    batch = {
        "image": {"pixels": torch.randint(0, 256, (4, 1, 3, 32, 32), dtype=torch.uint8)},
        "depth": {"features": torch.randn(4, 3, 5), "length": torch.tensor([3, 1, 0, 2])},
        "present": {"image": torch.tensor([1, 1, 1, 0]).bool(), "depth": torch.tensor([1, 1, 0, 1]).bool()},
    }
    z = model(batch)
    assert list(z) == ["image", "depth"]
    for name, rows in z.items():
        assert rows.shape == (4, 24)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
        absent = ~batch["present"][name]
        assert bool((rows[absent] == torch.eye(24)[0]).all())
    sum(rows.square()[:, 1:5].sum() for rows in z.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_features_learn_as_heads_do_and_images_as_towers(model: MoverModel) -> None:
    groups = model.parameter_groups(OptimizerConfig(lr=1e-3, tower_lr=1e-5, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert set(rates) == {id(p) for p in model.parameters() if p.requires_grad}
    depth, image = model.towers["depth"], model.towers["image"]
    assert {rates[id(p)] for p in depth.parameters()} == {1e-3}
    assert {rates[id(p)] for p in image.parameters() if p.requires_grad} == {1e-5}
    assert sum(p.requires_grad for p in image.parameters()) < len(list(image.parameters())) / 2
    assert isinstance(depth, FeatureEncoder) and list(depth.depths()) == []
    assert model.train().towers["image"].training


def test_an_image_is_a_clip_of_one_frame(data_config, video_config) -> None:
    sizes = {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 32}
    image = VideoEncoder(ImageTowerConfig(kind="image", **sizes), 32, 1, "model.others.photo").eval()
    video = VideoEncoder(video_config.model_copy(update={"temporal_layers": 0}), 32, 3).eval()
    video.load_state_dict(image.state_dict())
    pixels = torch.randint(0, 256, (2, 1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(image(pixels), video(pixels.expand(-1, 3, -1, -1, -1)))
    with pytest.raises(UserError, match=r"data\.image_size must be a multiple of model\.others\.photo\.patch_size"):
        VideoEncoder(ImageTowerConfig(kind="image", **sizes, patch_size=5), 32, 1, "model.others.photo")


def test_names_that_torch_has_taken(data_config) -> None:
    for name in ("keys", "train", "float", "training"):
        with pytest.raises(UserError, match=f"'{name}' is a name that torch uses"):
            MoverModel(ModelConfig(others={name: config(0)}), data_config, ("audio", name))
