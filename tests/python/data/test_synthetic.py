"""The embedded data set: equal seeds give equal bytes, no key is in two splits, the folder is whole or not there."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mover.config import DataConfig
from mover.data import ClipDataset, Tokenizer, make_loader, read_audio, read_manifest, read_video, select_split
from mover.data.importers import IMPORTERS
from mover.data.media import read_image
from mover.data.sampling import generator
from mover.data.synthetic import design, generate, pictures, sounds
from mover.data.synthetic.captions import _WORDS, describe
from mover.errors import UserError

SMALL = {"train": 8, "validation": 3, "test": 4}


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "demo"
    assert generate(out, **SMALL, seed=5, progress=False) == out / "manifest.jsonl"
    return out


def test_equal_seeds_give_equal_bytes(made: Path, tmp_path: Path) -> None:
    generate(tmp_path / "again", **SMALL, seed=5, workers=1, progress=False)
    generate(tmp_path / "other", **SMALL, seed=6, progress=False)
    first, again, other = digest(made), digest(tmp_path / "again"), digest(tmp_path / "other")
    assert first == again and len(first) == 15 + 8
    assert all(first[name] != other[name] for name in first if name.endswith((".mp4", ".json", ".csv", ".jsonl")))


def test_read_back_through_the_ordinary_importers(made: Path) -> None:
    clips = read_manifest(made / "manifest.jsonl")
    assert clips == IMPORTERS["msrvtt"](made, made / "videos", protocol="full", source="mover-synth")
    assert Counter(clip.split for clip in clips) == {"train": 8, "val": 3, "test": 4}
    assert {clip.split: len(set(clip.captions)) for clip in clips} == {"train": 8, "val": 1, "test": 1}
    assert [clip.label for clip in clips] == [design.SHAPES[scene.shape] for scene in design.scenes(8, 3, 4, 5)]
    other = IMPORTERS["audiocaps"](made / "audiocaps", made / "videos")
    assert [(c.id, c.split, c.captions, c.video) for c in other] == [
        (c.id, c.split, c.captions, c.video) for c in clips
    ]
    for clip in clips:
        video = read_video(clip.video, design.SIZE)
        assert video.pixels.shape == (16, 3, 64, 64) and video.duration == pytest.approx(2.0)
        assert len(read_audio(clip.audio, design.SAMPLE_RATE)) == 32000


def test_files_hold_what_was_drawn_and_played(made: Path) -> None:
    for scene in design.scenes(8, 3, 4, 5)[::5]:
        drawn = pictures.draw(scene, generator(5, 2, scene.number)).transpose(0, 3, 1, 2)
        seen = read_video(made / "videos" / f"{scene.id}.mp4", design.SIZE).pixels
        assert np.abs(seen.astype(float) - drawn).mean() < 8
        played = sounds.play(scene, generator(5, 3, scene.number))
        heard = read_audio(made / "videos" / f"{scene.id}.mp4", design.SAMPLE_RATE)
        spectra = [np.abs(np.fft.rfft(wave.reshape(-1, 400), axis=1)) for wave in (played, heard)]
        assert np.corrcoef(spectra[0].ravel(), spectra[1].ravel())[0, 1] > 0.9


def test_it_feeds_the_loader(made: Path) -> None:
    config = DataConfig(manifest=made / "manifest.jsonl", frames=4, image_size=64, audio_seconds=2.0, cache="memory")
    clips = select_split(read_manifest(config.manifest), "train")
    dataset = ClipDataset(
        clips, config, ("text", "video", "audio"), Tokenizer.for_data(config), training=True, progress=False
    )
    (batch,) = make_loader(dataset, 8, steps=1)
    assert len(set(batch["ids"])) == 8 and not dataset.skipped and batch["audio"]["length"].tolist() == [32000] * 8


def test_splits_share_no_key_and_held_out_clips_are_unique() -> None:
    plan = design.scenes(1200, 200, 200, 0)
    keys = {split: [scene.key for scene in plan if scene.split == split] for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in keys.items()} == {"train": 1200, "val": 200, "test": 200}
    assert len(set(keys["val"])) == len(set(keys["test"])) == 200 and len(set(keys["train"])) == 560
    assert not set(keys["train"]) & set(keys["test"]) and not set(keys["val"]) & set(keys["test"] + keys["train"])
    pairs = [(scene.key, scene.colour) for scene in plan]
    assert len(set(pairs)) == len(pairs), "a key that comes again has another colour"
    for attribute, values in (("shape", 10), ("colour", 10), ("size", 3), ("motion", 8), ("background", 4)):
        assert len({getattr(scene, attribute) for scene in plan if scene.split == "train"}) == values


def test_sound_follows_the_picture_by_rule() -> None:
    for ours, tied in (("shape", "timbre"), ("size", "pitch"), ("motion", "pattern"), ("background", "ambience")):
        pairs = {(s.attributes()[ours], s.attributes()[tied]) for s in design.scenes(1200, 200, 200, 1)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), "one to one"


def test_full_captions_tell_everything() -> None:
    words = {(kind, name): choices for kind, names in _WORDS.items() for name, choices in names.items()}
    for kind, names in _WORDS.items():
        phrases = [phrase for choices in names.values() for phrase in choices]
        assert len(set(phrases)) == len(phrases), f"two values of {kind} share a phrase"
    for scene in design.scenes(1, 200, 200, 0):
        caption = describe(scene, generator(1, scene.number), full=True)
        for kind, name in scene.attributes().items():
            assert any(phrase in caption for phrase in words[kind, name]), (kind, name, caption)
        assert " ," not in caption and "  " not in caption and "{" not in caption


def test_training_captions_vary_and_drop_attributes() -> None:
    scene = design.scenes(1, 1, 1, 0)[0]
    captions = [describe(scene, generator(2, n), full=False) for n in range(400)]
    assert len(set(captions)) > 200
    colour = _WORDS["colour"][scene.attributes()["colour"]]
    share = np.mean([any(word in caption for word in colour) for caption in captions])
    assert 0.8 < share < 0.97


def test_motions_show_in_any_four_frames() -> None:
    for motion, name in enumerate(design.MOTIONS):
        for trial in range(20):
            scene = design.Scene(0, "train", 0, 0, 1, motion, 0)
            frames = pictures.draw(scene, generator(trial, 0))[generator(trial, 1).integers(0, 4, 4) + 4 * np.arange(4)]
            change = np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2, 3)).max()
            assert (change == 0) if name == "still" else (change > 0.8), (name, trial, change)


def test_sounds_are_loud_enough_and_never_clip() -> None:
    for scene in design.scenes(60, 1, 1, 3):
        wave = sounds.play(scene, generator(0, scene.number))
        assert wave.shape == (32000,) and wave.dtype == np.float32
        assert np.isfinite(wave).all() and np.abs(wave).max() <= 0.981 and np.sqrt(np.mean(wave**2)) > 0.01


def test_a_complete_data_set_is_used_again(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    generate(made, **SMALL, seed=5, progress=False)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_other_settings_replace_our_own_folder(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    out.mkdir()  # empty: welcome
    for train in (2, 1):
        generate(out, train=train, validation=1, test=1, progress=False)
        assert json.loads((out / "dataset.json").read_text())["train"] == train
        assert len(list((out / "videos").iterdir())) == train + 2
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="did not make it"):
        generate(tmp_path, train=1, validation=1, test=1, progress=False)
    (tmp_path / "dataset.json").write_text('{"name": "other"}')
    with pytest.raises(UserError, match="did not make it"):
        generate(tmp_path, train=1, validation=1, test=1, progress=False)
    with pytest.raises(UserError, match="did not make it"):
        generate(tmp_path / "thesis.txt", train=1, validation=1, test=1, progress=False)
    with pytest.raises(UserError, match="cannot be written"):
        generate(tmp_path / "thesis.txt" / "x", train=1, validation=1, test=1, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    calls = []

    def failing(folder: Path, seed: int, scene: design.Scene) -> None:
        calls.append(scene)
        if len(calls) == 3:
            raise fault

    monkeypatch.setattr("mover.data.synthetic.folder._write_clip", failing)
    with pytest.raises(fault):
        generate(tmp_path / "demo", **SMALL, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, -1), (1, 480, 480)])
def test_impossible_counts(tmp_path: Path, counts: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=r"at least 1|less than 960"):
        generate(tmp_path / "x", train=counts[0], validation=counts[1], test=counts[2], progress=False)
    assert not (tmp_path / "x").exists()


def test_several_processes_write_the_same(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mover.data.synthetic.folder._PER_PROCESS", 4)
    generate(tmp_path / "x", **SMALL, seed=5, workers=2, progress=False)
    assert digest(tmp_path / "x") == digest(made)


def test_clip_table(made: Path) -> None:
    with (made / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15 and rows[0]["id"] == "video0" and rows[0]["shape"] in design.SHAPES


def test_stills_are_another_take_at_rest(made: Path, tmp_path: Path) -> None:
    manifest = generate(tmp_path / "x", **SMALL, seed=5, progress=False, stills=True)
    plain, more = digest(made), digest(manifest.parent)
    same = {name: value for name, value in more.items() if not name.startswith("stills/")}
    changed = {"manifest.jsonl", "dataset.json"}
    assert {n: v for n, v in same.items() if n not in changed} == {n: v for n, v in plain.items() if n not in changed}
    for clip, scene in zip(read_manifest(manifest), design.scenes(8, 3, 4, 5), strict=True):
        picture = read_image(clip.others["still"].path, design.SIZE)
        frames = read_video(clip.video, design.SIZE).pixels
        assert clip.present("still") and not any(np.array_equal(picture, frame) for frame in frames)
        rest = dataclasses.replace(scene, motion=0)
        assert design.MOTIONS[0] == "still"
        np.testing.assert_array_equal(picture, pictures.draw(rest, generator(5, 5, scene.number))[0].transpose(2, 0, 1))
    assert digest(generate(tmp_path / "x", **SMALL, seed=5, progress=False).parent) == plain, "and back"
