"""One run at a time in a folder; the lock goes with the process, the file says whose it is."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mover
from mover.errors import UserError
from mover.train import lock
from mover.train.lock import LOCK, check_free, locked


def quiet(text: str) -> None:
    pytest.fail(f"there is nothing to say: {text}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_another_is_kept_out_and_told_by_whom(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "demo"
    check_free(folder)
    assert not folder.exists()
    told = rf"{folder} is in use: process {os.getpid()} on {socket.gethostname()} has trained there since 2\d+-"
    with locked(folder, quiet):
        holder = json.loads((folder / LOCK).read_text())
        assert (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())
        with pytest.raises(UserError, match=told), locked(folder, quiet):
            pass
        with pytest.raises(UserError, match=told):
            check_free(folder)
        (folder / LOCK).write_text("not json")
        with pytest.raises(UserError, match="is in use: another process"):
            check_free(folder)
        (folder / "config.yaml").touch()
    assert names(folder) == ["config.yaml"]
    with locked(folder, quiet):
        pass


def test_a_folder_that_stays_empty_goes(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "runs" / "demo", quiet):
        raise RuntimeError
    assert names(tmp_path) == []
    (tmp_path / "runs").mkdir()
    with locked(tmp_path / "runs" / "demo", quiet):
        pass
    assert names(tmp_path) == ["runs"] and names(tmp_path / "runs") == []


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom mover.train.lock import locked\n"
        "with locked(Path(sys.argv[1]), print):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mover.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {process.pid} on"):
            check_free(tmp_path)
        process.send_signal(signal.SIGKILL)
    assert names(tmp_path) == [LOCK]
    check_free(tmp_path)
    with locked(tmp_path, quiet):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert names(tmp_path) == []


def test_one_that_only_looks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK).touch()
    looking = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))
    with locked(tmp_path, quiet):
        pass
    os.close(looking)


def test_a_lock_whose_file_goes_while_it_is_taken_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = fcntl.flock, 0

    def flock(handle: int, how: int) -> None:
        nonlocal taken
        real(handle, how)
        taken += 1
        if taken == 1:
            (tmp_path / LOCK).unlink()  # by the run that ended

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path, quiet):
        assert taken == 2 and json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*about: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    with locked(tmp_path, said.append):
        check_free(tmp_path)
    assert len(said) == 1 and "has no locks (Operation not supported)" in said[0]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*about: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(UserError, match="demo cannot be written: No space left"), locked(tmp_path / "demo", quiet):
        pass
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: "), locked(tmp_path / "file" / "demo", quiet):
        pass
