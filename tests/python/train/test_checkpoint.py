"""Checkpoints: whole or not there, read with a clear sentence for whatever is wrong."""

import os
import shutil
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
from mover.train.checkpoint import (
    ARCHITECTURE,
    FILES,
    MODEL,
    STATE,
    copy_checkpoint,
    find_checkpoint,
    load_checkpoint_config,
    load_checkpoint_model,
    load_state,
    load_weights,
    save_checkpoint,
)

SMALL = {f"model.{name}.layers": 1 for name in ("text", "audio")}
STATE_DICT: dict[str, Any] = {"step": 3, "best": None, "optimizer": {}, "random": {}}


class Model(nn.Linear):
    """Stands for a `MoverModel`."""

    def architecture(self) -> dict[str, Any]:
        return {"text": {"layers": 2}}


def save(folder: Path, value: float = 1.0) -> nn.Linear:
    model = Model(3, 2)
    nn.init.constant_(model.weight, value)
    tokenizer = Tokenizer.train(["a red circle", "a blue square"], 8, 270)
    save_checkpoint(
        folder,
        model=model,
        objective=nn.Linear(1, 1),
        state=STATE_DICT,
        config=load_config("demo"),
        tokenizer=tokenizer,
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


@pytest.mark.parametrize("broken", ["save_model", "save_config", "flush", "rename"])
def test_a_failure_while_writing_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    folder = tmp_path / "last"
    save(folder, 1.0)

    def fail(*args: Any, **options: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        if broken == "rename":  # dies between moving the old one away and the new one in
            calls: list[Any] = []
            real = os.rename
            patch.setattr(os, "rename", lambda *a: fail() if calls else (calls.append(a), real(*a)))
        else:
            patch.setattr(module, broken, fail)
        with pytest.raises(OSError, match="disk full"):
            save(folder, 2.0)
    assert weight(find_checkpoint(folder)) == 1.0
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


@pytest.mark.parametrize("name", [name for name in FILES if name != STATE])
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
