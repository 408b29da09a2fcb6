"""Pairs of text with digits and with measurements: what is written follows from what is measured, and trains."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn.datasets import load_breast_cancer, load_digits

from mover.cli import main
from mover.configs import load_config
from mover.data import read_manifest
from mover.data.features import read_features
from mover.data.made.digits import DIGITS, FINDINGS, find, make_digits
from mover.data.made.notes import make_notes
from mover.data.media import read_image
from mover.errors import UserError
from mover.train.trainer import train

SMALL = {"train": 40, "validation": 10, "test": 12}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("made") / "digits", **SMALL, seed=1)


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_notes(tmp_path_factory.mktemp("made") / "notes", **SMALL, seed=1)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_seeds_give_equal_bytes(digits: Path, notes: Path, tmp_path: Path) -> None:
    assert content(make_digits(tmp_path / "d", **SMALL, seed=1).parent) == content(digits.parent)
    assert content(make_notes(tmp_path / "n", **SMALL, seed=1).parent) == content(notes.parent)
    other = content(make_digits(tmp_path / "o", **SMALL, seed=2).parent)
    assert other["manifest.jsonl"] != content(digits.parent)["manifest.jsonl"]
    assert len(other) == 62 + 3


def test_pictures_are_the_digits_of_scikit_learn(digits: Path) -> None:
    bunch = load_digits()
    known = {np.rint(image / 16 * 255).astype(np.uint8).tobytes(): digit
             for image, digit in zip(bunch.images, bunch.target, strict=True)}  # fmt: skip
    seen = set()
    for clip in read_manifest(digits):
        pixels = read_image(clip.others["image"].path, 32)
        assert pixels.shape == (3, 32, 32) and (pixels[0] == pixels[1]).all()
        small = np.ascontiguousarray(pixels[0, 2::4, 2::4])
        close = min(known, key=lambda key: np.abs(np.frombuffer(key, np.uint8).reshape(8, 8) - small.astype(int)).sum())
        assert DIGITS[known[close]] == clip.label
        assert all(str(clip.label) in caption for caption in clip.captions)
        seen.add(close)
    assert len(seen) == 62, "no digit is used twice"


def test_strokes_are_found() -> None:
    """A bar, its mirror image, and the same with more ink, wider, higher and to the right."""
    right = np.zeros((8, 8))
    for row in range(8):
        right[row, 5 - row // 3] = 0.5
    bold, wide, high, far = right * 2, right.copy(), right.copy(), np.roll(right, 2, axis=1)
    wide[:, 1:7] += 0.3
    high[4:] *= 0.5
    images = np.stack([right, right[:, ::-1], bold, wide, high, far])
    ink, slant, width, height, side = find(images, np.ones(6, bool)).T
    names = [finding.name for finding in FINDINGS]
    assert names == ["ink", "slant", "width", "height of the ink", "side of the ink"]
    assert slant[0] == 2 and slant[1] == 0
    assert ink[2] == 2 and ink[4] == 0
    assert width[3] == 2 and height[4] == 2 and side[5] == 2 > side[1]


def test_notes_tell_measurements_and_no_diagnosis(notes: Path) -> None:
    bunch = load_breast_cancer()
    clips = read_manifest(notes)
    rows = np.stack([read_features(clip.others["measurements"]) for clip in clips])
    training = np.array([clip.split == "train" for clip in clips])
    np.testing.assert_allclose(rows[training].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rows[training].std(0), 1, atol=1e-5)
    order = np.argsort(rows[:, 0])
    said = [" ".join(clips[i].captions).lower() for i in order]
    small, large = ([position for position, text in enumerate(said) if phrase in text]
                    for phrase in ("nuclei are small", "nuclei are large"))  # fmt: skip
    assert max(small) < min(large), "what is said of the size follows the radius"
    assert Counter(clip.label for clip in clips).keys() == set(bunch.target_names)
    text = " ".join(said)
    assert "malignant" not in text and "benign" not in text and not any(c.isdigit() for c in text)


def test_training_clips_have_several_captions_others_one(digits: Path, notes: Path) -> None:
    for manifest, findings in ((digits, 5), (notes, 7)):
        clips = read_manifest(manifest)
        assert Counter(clip.split for clip in clips) == {"train": 40, "val": 10, "test": 12}
        for clip in clips:
            assert (len(clip.captions) > 1) == (clip.split == "train")
            assert len(set(clip.captions)) == len(clip.captions)
            if clip.split != "train":
                separator = ", " if manifest == digits else "; "
                assert len(clip.captions[0].replace("fine, ", "").split(separator)) == findings + (manifest == digits)


def test_more_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There are 1797 digits, and 1500 \+ 300 \+ 300 = 2100"):
        make_digits(tmp_path / "d", train=1500)
    with pytest.raises(UserError, match="There are 569 samples"):
        make_notes(tmp_path / "n", train=500)


@pytest.mark.parametrize("kind", ["digits", "notes"])
def test_the_configuration_trains_on_it(kind: str, digits: Path, notes: Path, tmp_path: Path) -> None:
    manifest = {"digits": digits, "notes": notes}[kind]
    config = load_config(
        kind,
        {"data.manifest": str(manifest), "output": str(tmp_path), "train.steps": 60, "train.batch_size": 20,
         "train.validate_every": 60, "data.workers": 0},
    )  # fmt: skip
    outcome = train(config, console=Console(quiet=True))
    assert outcome.best is not None
    assert np.mean(list(outcome.best["R@1"].values())) > 15, "chance is 10"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--train", "3", "--val", "2", "--test", "1"]
    for kind in ("digits", "notes", "views"):
        assert main(["synth", "--kind", kind, "--out", str(tmp_path / kind), *flags]) == 0
        manifest = tmp_path / kind / "manifest.jsonl"
        assert capsys.readouterr().out == f"3 training, 2 validation and 1 test clips: {manifest}\n"
    assert main(["synth", "--kind", "digits", "--out", str(tmp_path / "views"), *flags]) == 2
    assert "holds another data set, mover-views" in capsys.readouterr().err
    for wrong, told in (
        (["--kind", "digits", "--noise", "1"], "--noise belongs to --kind views; the kind here is digits"),
        (["--views", "2"], "--views belongs to --kind views; the kind here is clips"),
        (["--kind", "views", "--noise", "-1"], "expected a number of at least 0, got '-1'"),
        (["--kind", "moons"], "moons"),
    ):
        assert main(["synth", "--out", str(tmp_path / "x"), *wrong]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
