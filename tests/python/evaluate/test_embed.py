"""Embedding a checkpoint into a file: right rows, interruptions, what is in the way, clips that cannot be used."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mover
from cases.untrained import FEATURES, feature_clips, untrained
from mover.configs import load_config
from mover.data.dataset import ClipDataset
from mover.data.manifest import Clip, Reference, read_manifest, select_split, write_manifest
from mover.data.synthetic import generate
from mover.errors import UserError
from mover.evaluate import embed_inputs, embed_parts
from mover.evaluate.embed import EvaluationSet, embed
from mover.evaluate.embed_checkpoint import embed_checkpoint, embed_to_file
from mover.evaluate.embed_inputs import code_hash
from mover.evaluate.embed_parts import OutOfDate, Parts
from mover.evaluate.embed_stream import Interrupted
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.embeddings_file import FORMATS, load_embeddings
from mover.models.model import MoverModel
from mover.train.checkpoint import CONFIG, load_checkpoint_model, load_checkpoint_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 23 clips of features."""
    return feature_clips(tmp_path_factory.mktemp("features"), 23)


@pytest.fixture(scope="module")
def checkpoint(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("runs") / "best", clips, **FEATURES)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 7 real clips."""
    return generate(tmp_path_factory.mktemp("media") / "data", train=1, validation=1, test=7, progress=False)


@pytest.fixture(scope="module")
def media_checkpoint(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("runs") / "best", media)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record after every batch."""
    monkeypatch.setattr(embed_parts, "_SECONDS", 0.0)


def in_memory(checkpoint: Path, missing: str = "fail", manifest: Path | None = None, batch_size: int = 5) -> Embeddings:
    """What `embed` gives for the same clips."""
    config = load_config(checkpoint / CONFIG)
    data = config.data if manifest is None else config.data.model_copy(update={"manifest": manifest})
    tokenizer = load_checkpoint_tokenizer(checkpoint, config)
    vocab_size = None if tokenizer is None else tokenizer.vocab_size
    model = load_checkpoint_model(checkpoint, config, data, vocab_size)
    listed = select_split(read_manifest(data.manifest), "test")
    given = EvaluationSet(
        listed, data, config.modalities, tokenizer, missing=missing, others=config.model.others
    )  # fmt: skip
    return embed(model, given, batch_size=batch_size, device=CPU, precision=config.train.precision)


def same(one: Embeddings, other: Embeddings) -> bool:
    assert one.ids == other.ids and one.labels == other.labels
    assert np.array_equal(one.text_owner, other.text_owner)
    assert one.modalities == other.modalities
    for m in one.modalities:
        assert np.array_equal(one.vectors[m], other.vectors[m]) and np.array_equal(one.present[m], other.present[m])
    return True


@pytest.mark.parametrize("suffix", list(FORMATS))
def test_the_file_holds_what_embed_gives(checkpoint: Path, clips: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "below" / f"e{suffix}"
    said: list[str] = []
    got = embed_checkpoint(checkpoint, out, batch_size=5, say=said.append)
    assert same(in_memory(checkpoint), got)
    assert got.labels is not None and got.labels[:5] == ("class 0", "class 1", "class 2", "class 3", "class 0")
    assert got.text_owner[:4].tolist() == [0, 1, 1, 2]
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert said[0].endswith(f"embedding 23 clips of {clips}, split test, on cpu")
    assert said[2:] == ["text: 45 of 45", "depth: 23 of 23", "notes: 23 of 23"]
    about = got.provenance
    assert about["checkpoint"] == str(checkpoint) and about["manifest"] == str(clips) and about["split"] == "test"
    assert about["missing_policy"] == "fail" and about["left_out"] == {} and about["absent"] == []
    assert about["counts"] == {
        "clips": 23, "captions": 45, "width": 16, "without": {"text": 0, "depth": 0, "notes": 0}
    }  # fmt: skip


def test_real_media_with_and_without_their_cache(media_checkpoint: Path, tmp_path: Path) -> None:
    config = load_config(media_checkpoint / CONFIG)
    assert config.data.cache == "memory"  # which `embed` uses, and the file needs not
    got = embed_checkpoint(media_checkpoint, tmp_path / "e.npz", batch_size=5, workers=2)
    assert same(in_memory(media_checkpoint), got)
    assert got.modalities == ("text", "video", "audio") and got.not_unit("video") is None


def test_a_row_belongs_to_its_clip(checkpoint: Path, clips: Path, tmp_path: Path) -> None:
    """Each clip on its own gives the rows that it has among the others."""
    whole = embed_checkpoint(checkpoint, tmp_path / "e.npz", batch_size=5)
    listed = read_manifest(clips)
    for place in (0, 7, 22):
        clip = replace(listed[place], captions=listed[place].captions[-1:])
        shutil.copy(clips.parent / "tokenizer.json", tmp_path)
        write_manifest(tmp_path / "one.jsonl", [clip])
        alone = embed_checkpoint(checkpoint, tmp_path / "one.npz", manifest=tmp_path / "one.jsonl", overwrite=True)
        last = np.flatnonzero(whole.text_owner == place)[-1]
        assert np.allclose(alone.vectors["text"][0], whole.vectors["text"][last], atol=1e-6)
        for m in ("depth", "notes"):
            assert np.allclose(alone.vectors[m][0], whole.vectors[m][place], atol=1e-6)


# -- interruptions


def killed(act: Callable[[], object], at: int, calls: tuple[str, ...]) -> bool:
    """Run `act` in a process of its own and kill it before call number `at` of these functions of `os`; whether it was.

    A kill with -9: nothing of the process runs any more.
    """
    child = os.fork()
    if child == 0:
        count = 0
        for name in calls:
            real = getattr(os, name)

            def hooked(*args: Any, real: Any = real, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count > at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            setattr(os, name, hooked)
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


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


def interrupted(checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch, after: int = 3, **options: Any) -> None:
    """Leave parts behind: an error in `put` after so many batches."""
    real, count = Parts.put, 0

    def fail(parts: Parts, modality: str, piece: Any) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise RuntimeError("power failure")
        real(parts, modality, piece)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "put", fail)
        with pytest.raises(RuntimeError, match="power failure"):
            embed_to_file(checkpoint, out, batch_size=5, **options)


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


# -- what is there already


def test_a_file_that_is_up_to_date_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npz"
    first = embed_to_file(checkpoint, out)
    state = out.stat()
    again = embed_to_file(checkpoint, out, batch_size=7, workers=3)
    assert (first.fresh, again.fresh) == (True, False)
    assert (again.clips, again.captions, again.width) == (23, 45, 16) and again.without == first.without
    assert out.stat() == state
    assert embed_to_file(checkpoint, out, overwrite=True).fresh


def changed(what: str, checkpoint: Path, clips: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint and options that differ in one thing."""
    mine = folder / "best"
    shutil.copytree(checkpoint, mine)
    if what == "weights":
        untrained(mine, clips, seed=1, **FEATURES)
    elif what == "settings":
        (mine / CONFIG).write_text((mine / CONFIG).read_text().replace("max_tokens: 40", "max_tokens: 39"))
    elif what == "policy":
        return mine, {"missing": "mask"}
    else:
        shutil.copytree(clips.parent, folder / "data")
        manifest = folder / "data" / "manifest.jsonl"
        listed = read_manifest(manifest)
        if what == "clips":
            write_manifest(manifest, listed[:-1])
        elif what == "captions":
            write_manifest(manifest, [replace(listed[0], captions=("another",)), *listed[1:]])
        elif what == "media":
            os.utime(folder / "data" / "depth.npy", ns=(0, 0))
        elif what == "split":
            write_manifest(manifest, [*listed, replace(listed[0], id="other", split="val")])
            return mine, {"manifest": manifest, "split": "val"}
        return mine, {"manifest": manifest}
    return mine, {}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("weights", "other weights"), ("settings", "other settings of the model or of reading media"),
        ("policy", "another policy for missing media"), ("clips", "other clips, captions or labels"),
        ("captions", "other clips, captions or labels"), ("split", "another split"),
        ("media", "other media files, or files that have changed since"),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_not_replaced(
    checkpoint: Path, clips: Path, tmp_path: Path, what: str, words: str
) -> None:
    out = tmp_path / "e.npz"
    embed_to_file(checkpoint, out)
    before = out.read_bytes()
    other, options = changed(what, checkpoint, clips, tmp_path / "other")
    with pytest.raises(UserError) as raised:
        embed_to_file(other, out, **options)
    assert f"{out} is there, made of {words}" in str(raised.value) and "--overwrite" in str(raised.value)
    assert out.read_bytes() == before
    assert embed_to_file(other, out, overwrite=True, **options).fresh
    assert not embed_to_file(other, out, **options).fresh


def test_a_copy_of_the_data_gives_the_same(checkpoint: Path, clips: Path, tmp_path: Path) -> None:
    """Where the data lie does not matter, as long as times of change are kept."""
    out = tmp_path / "e.npz"
    embed_to_file(checkpoint, out)
    shutil.copytree(clips.parent, tmp_path / "copy")
    assert not embed_to_file(checkpoint, out, manifest=tmp_path / "copy" / "manifest.jsonl").fresh


def test_edited_code_makes_another_file(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(mover.__file__).parent
    shutil.copytree(package, tmp_path / "mover", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    assert code_hash(tmp_path / "mover") == code_hash()
    with open(tmp_path / "mover" / "models" / "heads.py", "a") as file:
        file.write("\n")
    edited = code_hash(tmp_path / "mover")
    assert edited != code_hash()
    embed_to_file(checkpoint, tmp_path / "e.npz")
    monkeypatch.setattr(embed_inputs, "code_hash", lambda: edited)
    with pytest.raises(OutOfDate, match="made of another version of mover's code"):
        embed_to_file(checkpoint, tmp_path / "e.npz")


def test_files_of_others_are_not_replaced(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npz"
    np.savez(out, ids=np.arange(2), video=np.ones((2, 3)), audio=np.ones((2, 3)))
    with pytest.raises(UserError, match="not a file that mover embed wrote"):
        embed_to_file(checkpoint, out)
    out.write_bytes(b"something else")
    with pytest.raises(UserError, match="not a whole .npz file"):
        embed_to_file(checkpoint, out)
    with pytest.raises(UserError, match="ends in"):
        embed_to_file(checkpoint, tmp_path / "e.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        embed_to_file(checkpoint, tmp_path / "file" / "e.npz")


def test_a_full_disk(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*values: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("posix_fallocate", "pwrite"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(UserError, match="cannot be written: No space left on device. Make room"):
                embed_to_file(checkpoint, tmp_path / "e.npz", batch_size=5)
    assert same(in_memory(checkpoint), embed_checkpoint(checkpoint, tmp_path / "e.npz", batch_size=5))


# -- clips that cannot be used


def damaged(clips: Path, folder: Path) -> Path:
    """Clip 1 has no depth, 4 and 16 have depth that cannot be read, 9 no caption; 17 notes that cannot be read."""
    listed = read_manifest(clips)

    def without(clip: Clip, modality: str, reference: Reference | None = None) -> Clip:
        others = {m: r for m, r in clip.others.items() if m != modality}
        return replace(clip, others=others if reference is None else {**others, modality: reference})

    beyond = Reference(clips.parent / "depth.npy", 1000)
    listed[1] = without(listed[1], "depth")
    listed[4], listed[16] = (without(listed[i], "depth", beyond) for i in (4, 16))
    listed[9] = replace(listed[9], captions=())
    listed[17] = without(listed[17], "notes", beyond)
    folder.mkdir(exist_ok=True)
    write_manifest(folder / "manifest.jsonl", listed)
    return folder / "manifest.jsonl"


@pytest.mark.parametrize("missing", ["drop", "mask"])
def test_clips_without_a_modality(
    checkpoint: Path, clips: Path, tmp_path: Path, missing: str, records: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = damaged(clips, tmp_path / "damaged")
    options: dict[str, Any] = {"manifest": manifest, "missing": missing, "batch_size": 5}
    got = embed_checkpoint(checkpoint, tmp_path / "whole.npz", **options)
    assert same(in_memory(checkpoint, missing, manifest), got)
    assert {m: got.missing(m) for m in got.modalities} == {
        "text": ["clip 9"], "depth": ["clip 1", "clip 4", "clip 16"], "notes": ["clip 17"]
    }  # fmt: skip
    left_out = got.provenance["left_out"]
    assert {m: list(reasons) for m, reasons in left_out.items()} == {
        "text": ["clip 9"], "depth": ["clip 1", "clip 16", "clip 4"], "notes": ["clip 17"]
    }  # fmt: skip
    assert "no features can be read from it" in left_out["depth"]["clip 4"]
    for m in got.modalities:
        assert not got.vectors[m][(~got.present[m])[got.text_owner] if m == "text" else ~got.present[m]].any()

    for after in (1, 10, 11, 12, 13, 14, 15, 18):  # before, between and after the clips that cannot be read
        out = tmp_path / f"{after}.npz"
        interrupted(checkpoint, out, monkeypatch, after, manifest=manifest, missing=missing)
        embed_to_file(checkpoint, out, **options)
        assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_clip_that_cannot_be_used_stops_the_run_and_what_is_done_stays(
    checkpoint: Path, clips: Path, tmp_path: Path
) -> None:
    manifest, out = damaged(clips, tmp_path / "damaged"), tmp_path / "e.npz"
    with pytest.raises(UserError, match="'clip 9' of the split 'test' cannot be evaluated: caption missing"):
        embed_to_file(checkpoint, out, manifest=manifest, batch_size=5)
    listed = read_manifest(manifest)
    whole = read_manifest(clips)
    write_manifest(manifest, [whole[i] if i in (1, 9) else clip for i, clip in enumerate(listed)])
    with pytest.raises(UserError, match="'clip 4' of the split 'test' cannot be evaluated: .*no features can be read"):
        embed_to_file(checkpoint, out, manifest=manifest, batch_size=5)
    said: list[str] = []
    got = embed_checkpoint(checkpoint, out, manifest=manifest, batch_size=5, missing="drop", say=said.append)
    assert said[1] == f"going on from {out}.part: text 45 of 45, depth 0 of 23, notes 0 of 23 are there"
    assert same(in_memory(checkpoint, "drop", manifest), got)


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


def test_a_modality_that_no_clip_has(checkpoint: Path, clips: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    bare = [replace(clip, others={"notes": clip.others["notes"]}) for clip in read_manifest(clips)]
    write_manifest(manifest, bare)
    said: list[str] = []
    got = embed_checkpoint(checkpoint, tmp_path / "e.npz", manifest=manifest, missing="mask", say=said.append)
    assert got.modalities == ("text", "notes") and got.provenance["absent"] == ["depth"]
    assert "no clip has depth: it is not in the file, and its directions are left out" in said
    with pytest.raises(UserError, match="None of 23 clips can be used.*depth missing"):
        embed_to_file(checkpoint, tmp_path / "f.npz", manifest=manifest, missing="drop")
    write_manifest(manifest, [replace(clip, others={}) for clip in bare])
    with pytest.raises(UserError, match="No clip has depth or notes: two modalities are needed"):
        embed_to_file(checkpoint, tmp_path / "f.npz", manifest=manifest, missing="mask")


def test_rows_that_are_not_finite_are_told(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = MoverModel.encode
    monkeypatch.setattr(
        MoverModel, "encode", lambda self, m, x: encode(self, m, x) * (torch.nan if m == "notes" else 1)
    )
    written = embed_to_file(checkpoint, tmp_path / "e.npz")
    assert written.unusable == {"text": 0, "depth": 0, "notes": 23}
    assert len(load_embeddings(tmp_path / "e.npz").unusable("notes")) == 23
