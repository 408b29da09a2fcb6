"""The folder of a run while it is held: whose it is, and what is told of errors."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mover.config import Config
from mover.configs import load_config
from mover.errors import UserError
from mover.train.run_folder import RunFolder


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config("demo", {"output": str(tmp_path / "runs")})


def held(config: Config, said: list[str] | None = None, **flags: bool) -> Any:
    say = (lambda text: pytest.fail(text)) if said is None else said.append
    return RunFolder(config.folder).hold(config, **{"resume": False, "overwrite": False, **flags}, say=say)


def test_who_comes_second_is_refused_before_and_after(config: Config) -> None:
    folder = RunFolder(config.folder)
    assert folder.admit(config, resume=False, overwrite=False) is None
    with held(config):
        for flags in ((False, False), (True, False), (False, True)):
            with pytest.raises(UserError, match="is in use: process"):
                folder.admit(config, resume=flags[0], overwrite=flags[1])
        folder.open(config, anew=True)
    with pytest.raises(UserError, match="already holds a run"), held(config):  # it was admitted before that one began
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_what_cannot_be_written_is_told(config: Config, number: int) -> None:
    path = config.folder / "curves.png"
    with pytest.raises(UserError, match=rf"{path} cannot be written: .*go on with --resume"), held(config):
        raise OSError(number, "no", str(path))
    with pytest.raises(UserError, match=rf"{config.folder} cannot be written: no. Make room"), held(config):
        raise OSError(number, "no")


def test_errors_of_other_things_stay_what_they_are(config: Config) -> None:
    for error in (OSError(errno.EACCES, "no", "/elsewhere"), OSError(errno.EMFILE, "too many"), RuntimeError("x")):
        with pytest.raises(type(error)) as raised, held(config):
            raise error
        assert raised.value is error


def test_a_folder_that_vanished_is_told_and_not_made_again(config: Config, tmp_path: Path) -> None:
    folder = RunFolder(config.folder)
    nothing: Any = None
    for write in (
        lambda: folder.write_plans(1, {"text-video": nothing}),
        lambda: folder.save(
            model=nothing, objective=nothing, state={}, config=config, tokenizer=None, best=False
        ),
        lambda: folder.log.write_text("x"),
    ):  # fmt: skip

        def run(write: Callable[[], Any] = write) -> None:
            with held(config):
                folder.path.rename(tmp_path / "moved")
                write()

        with pytest.raises(UserError, match="demo is gone: it was removed or moved"):
            run()
        assert not folder.path.exists()
        (tmp_path / "moved" / "lock.json").unlink()
        (tmp_path / "moved").rmdir()


def test_a_checkpoint_of_another_version_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(config.folder)
    folder.last.mkdir(parents=True)
    about = {"step": 5, "best": False, "version": "0.0.1", "commit": None, "torch": "1.0", "bytes": {}}
    (folder.last / "about.json").write_text(json.dumps(about))
    monkeypatch.setattr(RunFolder, "_admit", lambda self, *given: self.last)
    said: list[str] = []
    with held(config, said, resume=True):
        pass
    assert len(said) == 1 and "last was written by mover 0.0.1, torch 1.0, and this is mover " in said[0]
    assert said[0].endswith("What follows may differ from what would have followed there.")
