"""Disks and folders that fail a run: full, read-only, gone, or held by another run."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault import Fault, NotHere
from place import STEPS, Child, Ended, Place, at_step

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_REFUSED = 98
"""Exit code of a process that may not have mounts of its own."""


def with_own_mounts(scenario: Callable[[Place, float], str]) -> Callable[[Place, float], str]:
    """Run a scenario in a process that can mount file systems nobody else sees; they end with it.

    Raises NotHere where the kernel does not let it.
    """

    def once(place: Place, share: float) -> str:
        assert place.whole  # made here, once, and not by each process
        result = place.folder / "result"
        result.unlink(missing_ok=True)

        def act() -> int:
            if not _take_own_mounts():
                return _REFUSED
            result.write_text(scenario(place, share))
            return 0

        child = Child(act, place.folder / "mounts.txt")
        _, status = os.waitpid(child.pid, 0)
        code, said = os.waitstatus_to_exitcode(status), child.output.read_text()
        if code == _REFUSED:
            raise NotHere("the kernel lets this user mount nothing")
        assert code == 0, said[-2000:]
        return result.read_text()

    return once


def _take_own_mounts() -> bool:
    user, group = os.getuid(), os.getgid()
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(_NEW_MOUNTS) != 0:  # which needs a user namespace, for anyone but root
        if unshare(_NEW_MOUNTS | _NEW_USER) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return _mount("--make-rprivate", "/")


def _mount(*words: object) -> bool:
    return subprocess.run(["mount", *map(str, words)], capture_output=True).returncode == 0


def full_disk(place: Place, share: float) -> str:
    """A file system of some hundred kB, which fills up at one checkpoint or another; then it is made larger."""
    name = place.new()
    run = place.run(name)
    run.path.mkdir(parents=True)
    assert _mount("-t", "tmpfs", "-o", f"size={100 + int(1500 * share)}k", "tmpfs", run.path)
    ended = place.train(name).wait()
    error = _refused(ended)
    assert "No space left on device" in error and "Make room" in error, error
    left = [path for path in run.path.rglob("*") if path.suffix in (".new", ".part", ".old")]
    assert not left, f"left behind: {left}"
    place.check_whole(name)
    assert _mount("-o", "remount,size=64m", run.path)
    place.resume(name)
    place.check_same(name)
    return _shown(place, name, error)


def read_only_midway(place: Place, share: float) -> str:
    """The folder of the run is mounted read-only while it trains; then it is writable again."""
    name = place.new()
    run, step = place.run(name), 1 + int(share * (STEPS - 2))

    def close() -> None:
        assert _mount("--bind", run.path, run.path) and _mount("-o", "remount,bind,ro", run.path)

    error = _refused(place.train(name, before=at_step(step, close)).wait())
    assert "Read-only file system" in error and "writable" in error, error
    assert subprocess.run(["umount", run.path]).returncode == 0
    place.check_whole(name)
    place.resume(name)
    place.check_same(name)
    return _shown(place, name, error)


def read_only(place: Place, share: float) -> str:
    """The folder of all runs is read-only before the run begins."""
    name = place.new()
    folder = place.run(name).path.parent
    folder.mkdir(exist_ok=True)
    assert _mount("--bind", folder, folder) and _mount("-o", "remount,bind,ro", folder)
    error = _refused(place.train(name).wait())
    assert "cannot be written to" in error and "--output" in error, error
    return _shown(place, name, error)


def gone(place: Place, share: float) -> str:
    """The folder is removed, or moved, while the run trains."""
    name, other = place.new(), place.new()
    run, moved, step = place.run(name), place.run(other), 1 + int(share * (STEPS - 2))

    def move() -> None:
        shutil.move(run.path, moved.path)

    error = _refused(place.train(name, before=at_step(step, move)).wait())
    assert "is gone" in error and not run.path.exists(), error
    if share < 0.5:
        shutil.rmtree(moved.path)
        place.resume(name)
        place.check_same(name)
    else:
        place.check_whole(other)
        place.resume(other)
        place.check_same(other)
    place.forget(name)
    place.forget(other)
    return _shown(place, name, error)


def second_run(place: Place, share: float) -> str:
    """Others want the folder of a run while it trains; then it is killed, and another goes on at once."""
    name = place.new()
    child = place.train(name, before=at_step(3 + int(8 * share), lambda: os.kill(os.getpid(), signal.SIGSTOP)))
    child.until(lambda: _state(child.pid) == "T")
    errors = [_refused(place.train(name, *flags).wait()) for flags in ([], ["--resume"], ["--overwrite"])]
    for error in errors:
        assert f"is in use: process {child.pid} on " in error and " has trained there since 2" in error, error
    if share < 0.5:
        child.kill(signal.SIGCONT)
        assert child.wait().code == 0
    else:
        child.kill()
        child.wait()
        place.resume(name)
    place.check_same(name)
    place.forget(name)
    return _shown(place, name, errors[0].partition("name: ")[2]).replace(f"process {child.pid}", "process 4711")


def race(place: Place, share: float) -> str:
    """Three runs begin in a folder at once: one of them trains."""
    name = place.new()
    children = [place.train(name) for _ in range(3)]
    ended = [child.wait() for child in children]
    assert sorted(end.code for end in ended) == [0, 2, 2], [end.said[-300:] for end in ended]
    place.check_same(name)
    place.forget(name)
    return ""


def no_locks(place: Place, share: float) -> str:
    """A file system without locks."""

    def refuse(*about: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    name = place.new()
    ended = place.train(name, before=lambda: setattr(fcntl, "flock", refuse)).wait()
    warning = next((line for line in ended.said.splitlines() if "no locks" in line), "")
    assert ended.code == 0 and warning, ended.said[-500:]
    place.check_same(name)
    place.forget(name)
    return _shown(place, name, warning)


def _refused(ended: Ended) -> str:
    """The sentence of a run that ended with an error of the user's."""
    assert ended.code == 2 and ended.error, f"exit code {ended.code}: {ended.said[-1000:]}"
    return ended.error


def _shown(place: Place, name: str, error: str) -> str:
    """An error as the table has it, whatever the folders were called."""
    return error.replace(str(place.run(name).path), "runs/demo").replace(str(place.folder) + "/", "")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


FAULTS = (
    Fault(
        "full-disk", "the disk is full", "a file system (tmpfs) of 100 to 1600 kB, which fills up at some checkpoint; "
        "it is made larger and the run resumed", with_own_mounts(full_disk), 16,
    ),
    Fault(
        "read-only", "the folder of runs is read-only", "mounted so before the run", with_own_mounts(read_only), 1,
    ),
    Fault(
        "read-only-midway", "… becomes read-only while a run trains", "mounted so at some step; mounted writable again "
        "and the run resumed", with_own_mounts(read_only_midway), 6,
    ),
    Fault("gone", "the folder of the run vanishes", "moved away at some step, resumed there; or removed", gone, 6),
    Fault(
        "second-run", "a second run in the folder of one that trains", "without flags, with `--resume`, with "
        "`--overwrite`; then the first one goes on, or is killed and resumed", second_run, 6,
    ),
    Fault(
        "race", "three runs begin in one folder at once", "started together", race, 6, "one trains; the others say so",
    ),
    Fault("no-locks", "a file system without locks", "`flock` raises ENOLCK", no_locks, 1),
)  # fmt: skip
