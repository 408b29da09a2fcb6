"""Embedding a checkpoint into a file: right rows, what is in the way, clips that cannot be used."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mover
from cases.embedded import in_memory, interrupted, same
from cases.untrained import FEATURES, untrained
from mover.configs import load_config
from mover.data.manifest import Clip, Reference, read_manifest, write_manifest
from mover.data.synthetic import generate
from mover.errors import UserError
from mover.evaluate import embed_inputs
from mover.evaluate.embed_checkpoint import embed_checkpoint, embed_to_file
from mover.evaluate.embed_inputs import code_hash
from mover.evaluate.embed_parts import OutOfDate
from mover.evaluate.embeddings_file import FORMATS, load_embeddings
from mover.models.model import MoverModel
from mover.train.checkpoint import CONFIG


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 7 real clips."""
    return generate(tmp_path_factory.mktemp("media") / "data", train=1, validation=1, test=7, progress=False)


@pytest.fixture(scope="module")
def media_checkpoint(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("runs") / "best", media)


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
