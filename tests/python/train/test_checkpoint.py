"""Checkpoints: whole or not there, read with a clear sentence for whatever is wrong."""

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mover.config import Config
from mover.configs import load_config
from mover.data.tokenizer import Tokenizer
from mover.errors import UserError
from mover.train import checkpoint as module
from mover.train.built_from import built_from
from mover.train.checkpoint import (
    ARCHITECTURE,
    FILES,
    MODEL,
    NOT_ALWAYS_THERE,
    STATE,
    copy_checkpoint,
    find_checkpoint,
    has_checkpoint,
    load_checkpoint_config,
    load_checkpoint_model,
    load_state,
    load_weights,
    save_checkpoint,
)
from mover.train.checkpoint_files import other_version, read_about
from mover.train.checkpoint_history import keep_earlier, mend

SMALL = {f"model.{name}.layers": 1 for name in ("text", "audio")}
STATE_DICT: dict[str, Any] = {"step": 3, "best": None, "skipped": 0, "optimizer": {}, "random": []}


class Model(nn.Linear):
    """Stands for a `MoverModel`."""

    def architecture(self) -> dict[str, Any]:
        return {"text": {"layers": 2}}


def save(folder: Path, value: float = 1.0, step: int = 3, best: bool = False) -> nn.Linear:
    model = Model(3, 2)
    nn.init.constant_(model.weight, value)
    tokenizer = Tokenizer.train(["a red circle", "a blue square"], 8, 270)
    save_checkpoint(
        folder,
        model=model,
        objective=nn.Linear(1, 1),
        state={**STATE_DICT, "step": step},
        config=load_config("demo"),
        tokenizer=tokenizer,
        best=best,
    )
    return model


def weight(folder: Path) -> float:
    model = nn.Linear(3, 2)
    load_weights(model, folder / MODEL)
    return float(model.weight[0, 0].detach())


def test_round_trip_and_replacement(tmp_path: Path) -> None:
    last, best = tmp_path / "checkpoints" / "last", tmp_path / "checkpoints" / "best"
    save(last, 1.0)
    copy_checkpoint(last, best)
    save(last, 2.0)
    assert (weight(last), weight(best)) == (2.0, 1.0)
    assert sorted(p.name for p in last.iterdir()) == sorted(p.name for p in best.iterdir()) == sorted(FILES)
    assert sorted(p.name for p in last.parent.iterdir()) == ["best", "last"]
    assert load_checkpoint_config(last) == load_config("demo")
    assert load_state(last) == STATE_DICT
    assert Tokenizer.load(last / "tokenizer.json", 8).encode(["a red circle"])[0].shape[0] == 1


@pytest.mark.parametrize("broken", ["save_model", "save_config", "_save_state", "flush", "rename", "every rename"])
def test_a_failure_while_writing_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    folder = tmp_path / "last"
    save(folder, 1.0)

    def fail(*args: Any, **options: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        if "rename" in broken:  # the second moves the new one in; the third, the old one back
            real, count = os.rename, itertools.count(1)
            good = (1,) if broken == "every rename" else (1, 3)
            patch.setattr(os, "rename", lambda *a: real(*a) if next(count) in good else fail())
        else:
            patch.setattr(module, broken, fail)
        with pytest.raises(
            UserError, match=r"cannot be written \(disk full\): it takes .* kB, and the disk has .* left"
        ):
            save(folder, 2.0)
    found = find_checkpoint(folder)
    assert weight(found) == 1.0
    assert [p.name for p in tmp_path.iterdir()] == [found.name]
    assert found.name == ("last.old" if broken == "every rename" else "last")
    save(folder, 3.0)
    assert weight(find_checkpoint(folder)) == 3.0
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_no_checkpoint_and_the_one_near_by(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint at"):
        find_checkpoint(tmp_path / "runs" / "demo")
    save(tmp_path / "run" / "checkpoints" / "best")
    for wrong in ("run", "run/checkpoints", "run/checkpoints/beast"):
        with pytest.raises(UserError, match="There is one at .*checkpoints/best"):
            find_checkpoint(tmp_path / wrong)


@pytest.mark.parametrize("name", [name for name in FILES if name not in NOT_ALWAYS_THERE] + ["tokenizer.json"])
def test_an_incomplete_checkpoint(tmp_path: Path, name: str) -> None:
    save(tmp_path / "last")
    (tmp_path / "last" / name).unlink()
    with pytest.raises(UserError, match=f"not a whole checkpoint: {name} not there"):
        find_checkpoint(tmp_path / "last")


@pytest.mark.parametrize("keep", [0, 4, 60, -4])
def test_weights_cut_short(tmp_path: Path, keep: int) -> None:
    save(tmp_path / "last")
    path = tmp_path / "last" / MODEL
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="cut short"):
        weight(tmp_path / "last")


def test_weights_of_another_model(tmp_path: Path) -> None:
    save(tmp_path / "last")
    path = tmp_path / "last" / MODEL
    for other in (nn.Linear(4, 2), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2))):
        with pytest.raises(UserError, match=r"holds another model than config\.yaml") as raised:
            load_weights(other, path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "code", "absent"])
def test_a_damaged_training_state(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "last"
    save(folder)
    path = folder / STATE
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        torch.save({"step": 3}, path)
    elif damage == "code":
        torch.save(Config(), path)  # would run code if it were unpickled
    else:
        path.unlink()
    with pytest.raises(UserError, match=r"resume is not possible|cannot|not resumed"):
        load_state(folder)


def test_copies_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError("no links here")

    save(tmp_path / "last", 5.0)
    monkeypatch.setattr(os, "link", refuse)
    copy_checkpoint(tmp_path / "last", tmp_path / "best")
    shutil.rmtree(tmp_path / "last")
    assert weight(tmp_path / "best") == 5.0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"text": 3}', '{"text": {"hidden_size": "wide"}}'])
def test_a_damaged_description_of_the_towers(content: str, tmp_path: Path) -> None:
    save(tmp_path / "last")
    (tmp_path / "last" / ARCHITECTURE).write_text(content)
    config = load_config("demo", {"modalities": ["text", "audio"], **SMALL})
    with pytest.raises(UserError, match=ARCHITECTURE) as raised:
        load_checkpoint_model(tmp_path / "last", config, config.data, 50)
    assert "\n" not in str(raised.value)


def test_who_wrote_it(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    save(folder, step=7, best=True)
    about = read_about(folder)
    assert about.pop("bytes")[MODEL] == (folder / MODEL).stat().st_size
    assert about == {"step": 7, "best": True, **built_from()}
    assert other_version(folder) is None
    about = {**read_about(folder), "version": "0.0.1"}
    (folder / "about.json").write_text(json.dumps(about))
    told = other_version(folder)
    assert told is not None and f"{folder} was written by mover 0.0.1, " in told and torch.__version__ in told
    for content in ("", "[]", "{}", '{"step": "7"}', "\0"):  # of an earlier version, or damaged: the rest counts
        (folder / "about.json").write_text(content)
        assert read_about(folder) == {} and other_version(folder) is None
        assert find_checkpoint(folder) == folder and load_state(folder)["step"] == 7


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    last = tmp_path / "last"

    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    for step in (10, 20, 30, 40):
        keep_earlier(last, 3)
        save(last, step, step)
    assert names() == ["last", "step-000020", "step-000030"]
    assert [weight(tmp_path / name) for name in names()] == [40, 20, 30]
    before, kept = (tmp_path / name / MODEL for name in ("last", "step-000040"))
    inode = before.stat().st_ino
    keep_earlier(last, 2)
    assert kept.stat().st_ino == inode  # linked, not copied
    assert names() == ["last", "step-000040"]
    keep_earlier(last, 1)
    assert names() == ["last"]


def test_what_a_kill_left_half_done_is_finished(tmp_path: Path) -> None:
    last, best = tmp_path / "last", tmp_path / "best"
    save(best, 1.0, 1, True)
    save(last, 2.0, 2, True)
    save(tmp_path / "last.new", 3.0, 3)
    save(tmp_path / "last.old", 1.0, 1)
    save(tmp_path / "step-000002.new", 2.0, 2)
    best.rename(tmp_path / "best.old")
    for step in (1, 2, 3):
        save(tmp_path / f"step-{step:06d}", step, step)
    mend(last, best, keep_until=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last", "step-000001", "step-000002"]
    assert (weight(best), weight(last)) == (2.0, 2.0)
    save(last, 4.0, 4)
    mend(last, best, keep_until=4)
    assert weight(best) == 2.0


@pytest.mark.parametrize("name", [MODEL, STATE, ARCHITECTURE])
def test_a_damaged_last_one_names_those_that_are_whole(tmp_path: Path, name: str) -> None:
    last = tmp_path / "a run" / "last"
    for step, folder in ((10, "step-000010"), (20, "step-000020"), (15, "best"), (25, "step-000025"), (30, "last")):
        save(last.with_name(folder), step, step)
    shutil.copytree(last, last.with_name("last.new"))
    (last.with_name("step-000025") / STATE).write_bytes(b"damaged, too")
    (last / name).write_bytes(b"{")
    config = load_config("demo", {"modalities": ["text", "audio"], **SMALL})
    read = {
        MODEL: lambda: weight(last),
        STATE: lambda: load_state(last),
        ARCHITECTURE: lambda: load_checkpoint_model(last, config, config.data, 50),
    }
    with pytest.raises(UserError) as raised:
        read[name]()
    told = str(raised.value)
    assert "(step 20), " in told and "(step 15), " in told and "(step 10); " in told and "(step 25)" not in told
    command = told.partition("to go on from it: ")[2].partition("; and again with --resume.")[0]
    assert subprocess.run(command, shell=True).returncode == 0
    assert weight(last) == 20 and load_state(last)["step"] == 20


@pytest.mark.parametrize("name", [name for name in FILES if name != "about.json"])
def test_a_file_that_was_cut_is_found_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    save(tmp_path / "last")
    save(tmp_path / "best", step=2)
    path = tmp_path / "last" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{name}.*Whole is .*best .step 2.; to go on from it"):
        load_checkpoint_config(find_checkpoint(tmp_path / "last"))


def test_a_damaged_one_alone(tmp_path: Path) -> None:
    last = tmp_path / "last"
    assert not has_checkpoint(last)
    save(last)
    (last / STATE).write_bytes(b"")
    assert has_checkpoint(last)  # which is not to be replaced by a new run
    with pytest.raises(UserError, match="last is damaged: state.pt has 0 bytes of .* No other"):
        find_checkpoint(last)
    with pytest.raises(UserError, match="resume is not possible. No other checkpoint beside it is whole."):
        load_state(tmp_path / "last")
