"""Files that are not what they should be: checkpoints, media, manifests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from fault import Fault
from place import STEPS, Place, at_step

from mover.train.checkpoint_files import FILES


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _text(path: Path) -> None:
    path.write_text("this is no such file\n" * 50)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _nothing(path: Path) -> None:
    path.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (_cut, _empty, _zeros, _text, _folder, _nothing)
_NEEDED = tuple(name for name in FILES if name != "about.json")


def checkpoint(place: Place, share: float) -> str:
    """A file of checkpoints/last is damaged; what the error says to do is done."""
    kind, name = _choice(share, len(DAMAGES), len(_NEEDED))
    run = place.new()
    ended = place.train(run, before=at_step(10, lambda: os.kill(os.getpid(), signal.SIGTERM))).wait()
    assert ended.code == 143, ended.said
    folder = place.run(run)
    DAMAGES[kind](folder.last / _NEEDED[name])
    error = _refused(place, run, "--resume")
    command = error.partition("to go on from it: ")[2].partition("; and again with --resume.")[0]
    assert command and _NEEDED[name] in error, error
    assert subprocess.run(command, shell=True).returncode == 0
    place.resume(run)
    place.check_same(run)
    place.forget(run)
    return error.replace(str(folder.path), "runs/demo") if _NEEDED[name] == "state.pt" else ""


def media(place: Place, share: float) -> str:
    """Media files of training clips are damaged: they are left out, in every run alike."""
    (kind,) = _choice(share, len(DAMAGES))
    whole, cut = place.new(), place.new()
    data = place.folder / f"data-{whole}"
    shutil.copytree(place.manifest.parent, data)
    rows = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    damaged = [row for row in rows if row["split"] == "train"][1::5]
    for row in damaged:
        DAMAGES[kind](data / row["video"])
    there = data / "manifest.jsonl"
    ended = place.train(whole, data__manifest=there).wait()
    assert ended.code == 0, ended.said[-1000:]
    for row in damaged:
        assert f"Clip '{row['id']}' is left out" in ended.said, ended.said[:1000]
    stop = at_step(1 + int(share * (STEPS - 1)), lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert place.train(cut, before=stop, data__manifest=there).wait().code == -signal.SIGKILL
    place.resume(cut, data__manifest=there)
    place.check_same(cut, place.run(whole))
    seen = next(line for line in ended.said.splitlines() if "is left out" in line)
    for name in (whole, cut):
        place.forget(name)
    shutil.rmtree(data)
    return seen.replace(str(data), "data/demo")


_ROW = b'{"id": "a", "captions": ["x"], "split": "train", "video": "a.mp4"}\n'
MANIFESTS = {
    "no JSON": _ROW + b"{oops\n",
    "half a row": _ROW + _ROW[:30],
    "a list": b"[1, 2]\n",
    "an id that is a number": b'{"id": 3, "captions": ["x"], "split": "train"}\n',
    "captions that are a number": b'{"id": "a", "captions": 3, "split": "train"}\n',
    "a path that is an object": b'{"id": "a", "captions": ["x"], "split": "train", "video": {}}\n',
    "zero bytes": _ROW + bytes(4096),
    "a zero byte in a path": b'{"id": "a", "captions": ["x"], "split": "train", "video": "a\\u0000b"}\n',
    "UTF-16": _ROW.decode().encode("utf-16"),
    "Latin-1": '{"id": "Hündin", "split": "train"}\n'.encode("latin-1"),
    "a byte-order mark in mid-file": _ROW + b"\xef\xbb\xbf" + _ROW,
    "nothing": b"",
    "a line of 100 MB that is no JSON": _ROW + b"x" * 100_000_000 + b"\n",
    "a wrong value of 100 MB": b'{"id": "a", "split": "train", "captions": "' + b"x" * 100_000_000 + b'"}\n',
    "an id twice": _ROW + _ROW,
    "nesting without end": _ROW + b'{"id": "b", "extra": ' + b"[" * 100_000 + b"\n",
}
"""What is wrong with a manifest, and the manifest."""


def manifest(place: Place, share: float) -> str:
    """A manifest that is damaged is told with its line."""
    (which,) = _choice(share, len(MANIFESTS))
    text = list(MANIFESTS.values())[which]
    path, run = place.folder / "damaged.jsonl", place.new()
    path.write_bytes(text)
    ended = place.train(run, data__manifest=path, data__tokenizer=place.manifest.parent / "tokenizer.json").wait()
    error = ended.error
    assert ended.code == 2 and str(path) in ended.said and len(ended.said) < 20_000, ended.said[-1000:]
    path.unlink()
    return error.replace(str(path), "manifest.jsonl")


def _choice(share: float, *counts: int) -> tuple[int, ...]:
    """A place in a grid of these sizes, all of them reached as `share` goes from 0 to 1."""
    total = 1
    for count in counts:
        total *= count
    at, places = int(share * total), []
    for count in reversed(counts):
        places.append(at % count)
        at //= count
    return tuple(reversed(places))


def _refused(place: Place, run: str, *flags: str) -> str:
    ended = place.train(run, *flags).wait()
    assert ended.code == 2 and ended.error, f"exit code {ended.code}: {ended.said[-1000:]}"
    return ended.error


FAULTS = (
    Fault(
        "checkpoint", "a damaged `checkpoints/last`", "each of its files cut, emptied, filled with zeros, replaced by "
        "text or a folder, removed; then the command that the error gives", checkpoint, len(DAMAGES) * len(_NEEDED),
    ),
    Fault(
        "media", "damaged media", "three of the clips cut, emptied, filled with zeros, replaced by text or a folder, "
        "removed; killed and resumed, too", media, len(DAMAGES),
    ),
    Fault(
        "manifest", "a damaged manifest", "; ".join(MANIFESTS), manifest, len(MANIFESTS),
    ),
)  # fmt: skip
