"""`mover embed` stopped or killed, and gone on with: the bytes of a run that nothing stopped, or a refusal."""

import functools
import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases.embedded import in_memory, interrupted, killed, same
from mover.data.dataset import ClipDataset
from mover.data.manifest import Reference, read_manifest, write_manifest
from mover.errors import UserError
from mover.evaluate.embed_checkpoint import embed_checkpoint, embed_to_file
from mover.evaluate.embed_parts import Parts
from mover.evaluate.embed_stream import Interrupted
from mover.evaluate.embeddings_file import FORMATS, load_embeddings


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("suffix", list(FORMATS))
def test_a_killed_run_ends_in_the_same_bytes(checkpoint: Path, tmp_path: Path, suffix: str, records: None) -> None:
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"e{suffix}"
    embed_to_file(checkpoint, whole, batch_size=3)
    calls = ("pwrite", "fsync", "replace", "unlink", "open")
    draw, kills, steps = random.Random(suffix), 0, 0
    while killed(lambda: embed_to_file(checkpoint, out, batch_size=3), draw.randint(5, 60), calls):
        kills += 1
        if out.exists():
            break  # killed between the last move and the end
        record = out.with_name(f"{out.name}.part") / "progress.json"
        if record.exists():
            done = sum(json.loads(record.read_text())["done"].values())
            assert done >= steps
            steps = done
        assert kills < 40
    assert kills >= 5 and steps > 5
    said: list[str] = []
    embed_to_file(checkpoint, out, batch_size=3, say=said.append)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, whole.name]


def test_a_kill_at_every_moment_of_the_end(checkpoint: Path, tmp_path: Path) -> None:
    """While the file is put together: it is whole or not there."""
    whole, out = tmp_path / "whole.npz", tmp_path / "e.npz"
    embed_to_file(checkpoint, whole, batch_size=5)
    at = 0
    while killed(lambda: embed_to_file(checkpoint, out, batch_size=5), at, ("fsync", "replace", "rmdir", "unlink")):
        at += 1
        if out.exists():
            assert out.read_bytes() == whole.read_bytes()
            embed_to_file(checkpoint, out, batch_size=5)
            assert not out.with_name("e.npz.part").exists()
            out.unlink()
    assert at > 12
    assert out.read_bytes() == whole.read_bytes()


def test_only_what_is_missing_is_computed_again(
    checkpoint: Path, tmp_path: Path, records: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_to_file(checkpoint, tmp_path / "whole.npz", batch_size=5)
    out, real = tmp_path / "e.npz", Parts.put

    def stop(parts: Parts, modality: str, piece: Any) -> None:
        real(parts, modality, piece)
        if modality == "depth" and piece.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "put", stop)
        with pytest.raises(Interrupted) as raised:
            embed_to_file(checkpoint, out, batch_size=5, say=said.append)
    assert raised.value.signum == signal.SIGTERM
    state = "text 45 of 45, depth 15 of 23, notes 0 of 23"
    assert said[-1] == f"stopped with {state} done; the same command goes on from there"
    assert not out.exists()

    drawn: list[tuple[str, int]] = []
    draw = ClipDataset.draw
    with monkeypatch.context() as patch:
        patch.setattr(ClipDataset, "draw", lambda self, m, i, e=0: drawn.append((m, i)) or draw(self, m, i, e))
        said.clear()
        embed_to_file(checkpoint, out, batch_size=5, say=said.append)
    assert drawn == [("depth", i) for i in range(15, 23)] + [("notes", i) for i in range(23)]
    assert said[1:] == [f"going on from {out}.part: {state} are there", "depth: 23 of 23", "notes: 23 of 23"]
    assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_parts_of_something_else_are_not_mixed_in(
    checkpoint: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "e.npz"
    embed_to_file(checkpoint, tmp_path / "whole.npz", batch_size=4)
    interrupted(checkpoint, out, monkeypatch)
    with pytest.raises(UserError, match=r"e\.npz\.part holds what is done of a file made of batch_size 5 \(now 4\)"):
        embed_to_file(checkpoint, out, batch_size=4)
    said: list[str] = []
    embed_to_file(checkpoint, out, batch_size=4, overwrite=True, say=said.append)
    assert any(line.startswith(f"starting anew: {out}.part held what was done of") for line in said)
    assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_kill_while_starting_anew_leaves_nothing_that_looks_done(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.npz", tmp_path / "e.npz"
    embed_to_file(checkpoint, whole, batch_size=5)
    for at in range(4):
        interrupted(checkpoint, out, monkeypatch, 12)
        act = functools.partial(embed_to_file, checkpoint, out, batch_size=4, overwrite=True)
        assert killed(act, at, ("posix_fallocate", "fsync"))
        said: list[str] = []
        embed_to_file(checkpoint, out, batch_size=5, say=said.append)
        assert out.read_bytes() == whole.read_bytes()
        out.unlink()


@pytest.mark.parametrize("what", ["not json", "[]", '{"version": 0}', '{"version": 1}', "short rows"])
def test_damaged_parts_are_not_used(
    checkpoint: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "e.npz"
    interrupted(checkpoint, out, monkeypatch)
    if what == "short rows":
        os.truncate(tmp_path / "e.npz.part" / "text.f32", 10)
    else:
        (tmp_path / "e.npz.part" / "progress.json").write_text(what)
    with pytest.raises(UserError, match=r"e\.npz\.part holds what is done of a file .*--overwrite"):
        embed_to_file(checkpoint, out, batch_size=5)
    assert same(in_memory(checkpoint), embed_checkpoint(checkpoint, out, batch_size=5, overwrite=True))


def test_another_policy_or_more_workers_go_on_with_the_parts(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "e.npz"
    interrupted(checkpoint, out, monkeypatch)
    said: list[str] = []
    got = embed_checkpoint(checkpoint, out, batch_size=5, missing="mask", workers=2, say=said.append)
    assert said[1].startswith("going on from") and same(in_memory(checkpoint), got)


def test_only_one_process_writes(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "e.npz", Parts.put

    def again(parts: Parts, modality: str, piece: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Parts, "put", real)
            with pytest.raises(UserError, match="is being written by another process"):
                embed_to_file(checkpoint, out, overwrite=True)
        real(parts, modality, piece)

    monkeypatch.setattr(Parts, "put", again)
    embed_to_file(checkpoint, out)
    assert out.exists()


def test_files_repaired_before_they_were_read_do_not_stop_a_run(
    checkpoint: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(clips.parent, tmp_path / "data")
    manifest, out = tmp_path / "data" / "manifest.jsonl", tmp_path / "e.npz"
    interrupted(checkpoint, out, monkeypatch, 10, manifest=manifest)  # 9 batches of text, one of depth
    os.utime(tmp_path / "data" / "notes.npy", ns=(0, 0))
    said: list[str] = []
    got = embed_checkpoint(checkpoint, out, manifest=manifest, batch_size=5, say=said.append)
    assert said[1].startswith("going on from") and same(in_memory(checkpoint), got)

    out = tmp_path / "f.npz"
    interrupted(checkpoint, out, monkeypatch, 10, manifest=manifest)
    os.utime(tmp_path / "data" / "depth.npy", ns=(0, 0))
    with pytest.raises(
        UserError, match="f.npz.part holds what is done of a file made of depth files that have changed"
    ):
        embed_to_file(checkpoint, out, manifest=manifest, batch_size=5)


def test_rows_of_a_clip_that_is_damaged_after_a_kill_are_gone(
    checkpoint: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row was on disk, and no record told of it."""
    listed = read_manifest(clips)[:12]
    rows = np.load(clips.parent / "depth.npy")
    for i, clip in enumerate(listed):
        np.save(tmp_path / f"{i}.npy", rows[i])
        listed[i] = replace(clip, others={**clip.others, "depth": Reference(tmp_path / f"{i}.npy")})
    manifest, out, real = tmp_path / "manifest.jsonl", tmp_path / "e.npz", Parts.put
    write_manifest(manifest, listed)
    options: dict[str, Any] = {"manifest": manifest, "missing": "drop", "batch_size": 4}

    def put(parts: Parts, modality: str, piece: Any) -> None:
        real(parts, modality, piece)
        if modality == "depth" and piece.step == 0:
            parts.flush()
        if modality == "depth" and piece.step == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "put", put)
        assert killed(lambda: embed_to_file(checkpoint, out, **options), 1 << 30, ())
    assert np.fromfile(tmp_path / "e.npz.part" / "depth.f32", np.float32).reshape(12, 16).any(1).sum() == 8
    (tmp_path / "6.npy").write_bytes(b"damaged")
    said: list[str] = []
    embed_to_file(checkpoint, out, say=said.append, **options)
    assert "depth 4 of 12" in said[1]
    embed_to_file(checkpoint, tmp_path / "whole.npz", **options)
    assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert load_embeddings(out).missing("depth") == ["clip 6"]
