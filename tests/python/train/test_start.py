"""A run that begins with the trained weights of an earlier one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mover.configs import load_config
from mover.data.tokenizer import Tokenizer
from mover.errors import Problems, UserError
from mover.train.checks import check_run
from mover.train.start import find_starts, starting_model
from mover.train.trainer import train


@pytest.fixture(scope="module")
def earlier(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of text and audio, 2 steps."""
    own = {"modalities": "text,audio", "train.steps": 2, "output": str(tmp_path_factory.mktemp("earlier"))}
    return train(load_config("demo", {**settings, **own})).folder


def test_towers_and_heads_of_shared_modalities_are_those_of_the_earlier_run(
    settings: dict[str, Any], earlier: Path, tmp_path: Path
) -> None:
    own = {**settings, "output": str(tmp_path), "train.start_from": str(earlier)}
    config = load_config("demo", {**own, "model.audio.layers": 3})  # those of the earlier run count
    there = load_file(earlier / "checkpoints" / "best" / "model.safetensors")
    vocabulary = Tokenizer.for_data(config.data).vocab_size
    torch.manual_seed(0)
    here = starting_model(config, vocabulary).state_dict()
    assert there and all(torch.equal(here[name], value) for name, value in there.items())
    assert {name.split(".")[1] for name in here} == {"text", "audio", "video"}
    torch.manual_seed(0)
    anew = starting_model(load_config("demo", {**own, "train.start_from": ""}), vocabulary).state_dict()
    assert not torch.equal(anew["heads.audio.weight"], here["heads.audio.weight"])


def test_of_each_modality_the_first_run_that_has_it_counts(
    settings: dict[str, Any], earlier: Path, tmp_path: Path
) -> None:
    own = {**settings, "output": str(tmp_path), "train.steps": 2}
    seeing = train(load_config("demo", {**own, "modalities": "text,video", "name": "seeing", "seed": 5})).folder
    config = load_config("demo", {**own, "train.start_from": f"{seeing},{earlier}"})
    assert [start.modalities for start in find_starts(config)] == [("text", "video"), ("audio",)]
    here = starting_model(config, Tokenizer.for_data(config.data).vocab_size).state_dict()
    for folder, names in ((seeing, ("text", "video")), (earlier, ("audio",))):
        there = load_file(folder / "checkpoints" / "best" / "model.safetensors")
        assert all(torch.equal(here[k], v) for k, v in there.items() if k.split(".")[1] in names)
    with pytest.raises(UserError, match=r"none of this run's modalities .* that no run before it .*text, audio"):
        find_starts(load_config("demo", {**own, "train.start_from": f"{earlier},{earlier}"}))


def test_the_run_trains_on_from_there_and_resumes(settings: dict[str, Any], earlier: Path, tmp_path: Path) -> None:
    own = {**settings, "output": str(tmp_path), "train.start_from": str(earlier / "checkpoints" / "last")}
    slow = load_config("demo", {**own, "optimizer.lr": 1e-12, "train.steps": 2})
    folder = train(slow).folder
    there = load_file(earlier / "checkpoints" / "last" / "model.safetensors")
    here = load_file(folder / "checkpoints" / "last" / "model.safetensors")
    for name, value in there.items():
        torch.testing.assert_close(here[name], value, atol=1e-6, rtol=0)
    assert train(load_config("demo", {**own, "optimizer.lr": 1e-12, "train.steps": 3}), resume=True).step == 3


def test_what_cannot_be_begun_with_is_told(settings: dict[str, Any], earlier: Path, tmp_path: Path) -> None:
    def refused(**own: Any) -> str:
        given = {"output": str(tmp_path), "train.start_from": str(earlier)} | {
            k.replace("__", "."): v for k, v in own.items()
        }
        with pytest.raises(Problems) as raised:
            check_run(load_config("demo", {**settings, **given}))
        return "; ".join(raised.value.problems)

    assert "train.start_from: no checkpoint at" in refused(train__start_from=str(tmp_path / "no"))
    assert "embeds in 16 dimensions, this run in 32: set model.embed_dim to 16" in refused(model__embed_dim=32)
    image = {"model__others__image__kind": "image", "modalities": "video,image", "objective__anchor": "video"}
    assert "has text, audio, none of this run's modalities video, image" in refused(**image)
    other = tmp_path / "tokenizer.json"
    Tokenizer.train(["another set of words altogether"] * 3, 40).save(other)
    assert f"data.tokenizer: {other} is not the tokenizer" in refused(data__tokenizer=str(other))


def test_the_tokenizer_is_that_of_the_text_tower(settings: dict[str, Any], earlier: Path, tmp_path: Path) -> None:
    config = load_config("demo", {**settings, "output": str(tmp_path), "train.start_from": str(earlier)})
    ready = check_run(config)
    assert ready.tokenizer is not None
    own = Tokenizer.load(earlier / "checkpoints" / "best" / "tokenizer.json", 40)
    assert ready.tokenizer.fingerprint() == own.fingerprint()
    assert ready.findings["train.start_from"] == f"{earlier / 'checkpoints' / 'best'}: text, audio"


def test_damaged_weights_are_told(settings: dict[str, Any], earlier: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(earlier / "checkpoints" / "best", copy)
    config = load_config("demo", {**settings, "train.start_from": str(copy)})
    assert [start.modalities for start in find_starts(config)] == [("text", "audio")]
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"copy is damaged: model.safetensors has \d+ bytes of \d+"):
        starting_model(config, Tokenizer.for_data(config.data).vocab_size)
