"""Handwritten digits with captions: the 1,797 digits that ship with scikit-learn, described by rule.

A caption names the digit and five findings of the strokes, measured in the 8 x 8 picture and put into three levels that
are equally frequent in training: how much ink, the slant, how wide, and where the ink is heavier, high or low and left
or right. What is measured follows from the picture alone, so that a picture tells its whole caption.

images/digit<n>.png  grey, 32 x 32: each of the 8 x 8 values as 4 x 4 pixels
manifest.jsonl       a digit per row, its picture under `others`; the label is the digit
tokenizer.json       byte-level BPE trained on the training captions
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mover.data.clip import Clip, Reference
from mover.data.made.findings import Finding, deal, levels, said
from mover.data.made.folder import MANIFEST, make_folder
from mover.data.manifest import write_manifest
from mover.data.sampling import generator
from mover.data.tokenizer import Tokenizer

NAME = "mover-digits"
VERSION = 1
"""Raised whenever equal settings would give other pictures, captions or labels."""

CAPTIONS = 4
"""Captions of a training clip."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

FINDINGS = (
    Finding("ink", (("thin", "in thin strokes", "written lightly"), ("of medium strokes", "neither thin nor bold"),
                    ("bold", "in bold strokes", "written heavily"))),
    Finding("slant", (("leaning left", "tilted to the left"), ("upright", "standing straight"),
                      ("leaning right", "tilted to the right"))),
    Finding("width", (("narrow", "slim"), ("of ordinary width",), ("wide", "broad"))),
    Finding("height of the ink", (("heavier at the bottom", "with more ink below"), ("as heavy above as below",),
                                  ("heavier at the top", "with more ink above"))),
    Finding("side of the ink", (("set to the left",), ("centred", "in the middle"), ("set to the right",))),
)  # fmt: skip

_SPLITS, _WORDS = 0, 1
_ZOOM = 4


def make_digits(out: Path, *, train: int = 1197, validation: int = 300, test: int = 300, seed: int = 0) -> Path:
    """Make the folder `out`; gives the path of its manifest. Equal arguments give equal bytes.

    train, validation, test: clips per split, together at most 1,797. Training clips have four captions, each of which
    may leave findings out; the others have one that says all.
    Raises UserError for counts that cannot be met.
    """
    from sklearn.datasets import load_digits

    counts = {"train": train, "val": validation, "test": test}
    bunch = load_digits()
    dealt = deal(len(bunch.target), counts, "digits", generator(seed, _SPLITS))
    images = bunch.images[[item for item, _ in dealt]] / 16  # (n, 8, 8)
    digits = bunch.target[[item for item, _ in dealt]]
    splits = [split for _, split in dealt]

    def fill(folder: Path) -> None:
        found = find(images, np.array(splits) == "train")
        (folder / "images").mkdir()
        clips = []
        for i, (split, digit) in enumerate(zip(splits, digits, strict=True)):
            path = folder / "images" / f"digit{i}.png"
            _write_png(path, images[i])
            random = generator(seed, _WORDS, i)
            full = split != "train"
            captions = [describe(int(digit), found[i], random, full=full) for _ in range(1 if full else CAPTIONS)]
            clips.append(
                Clip(
                    f"digit{i}",
                    tuple(dict.fromkeys(captions)),
                    split=split,
                    label=DIGITS[digit],
                    source=NAME,
                    others={"image": Reference(path)},
                )
            )
        write_manifest(folder / MANIFEST, clips)
        texts = [caption for clip in clips if clip.split == "train" for caption in clip.captions]
        Tokenizer.train(texts, max_tokens=64).save(folder / "tokenizer.json")

    return make_folder(out, {"name": NAME, "version": VERSION, "seed": seed, **counts}, fill)


def find(images: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The levels of `FINDINGS`, int64 (n, 5), of images (n, 8, 8) in [0, 1]; `training`, bool (n,), sets the cuts."""
    axis = np.arange(8) - 3.5
    ink = images.sum((1, 2))
    down = (images.sum(2) @ axis) / ink  # centre of the ink, pixels below the middle
    right = (images.sum(1) @ axis) / ink
    x, y = axis - right[:, None], axis - down[:, None]  # (n, 8)
    xy = np.einsum("nij,ni,nj->n", images, y, x) / ink
    yy = np.einsum("nij,ni->n", images, y**2) / ink
    xx = np.einsum("nij,nj->n", images, x**2) / ink
    slant = -xy / yy  # how far the ink moves to the right for a pixel up
    measured = (ink, slant, np.sqrt(np.maximum(xx - slant**2 * yy, 0)), -down, right)
    return np.stack([levels(values, training, 3) for values in measured], axis=1)


def describe(digit: int, item: np.ndarray, random: np.random.Generator, *, full: bool) -> str:
    """One caption of a digit whose findings have these levels."""
    noun = ("a handwritten", "a", "the digit")[int(random.integers(3))]
    article = "an" if noun == "a" and DIGITS[digit] == "eight" else noun
    return ", ".join([f"{article} {DIGITS[digit]}", *said(FINDINGS, item.tolist(), random, full=full)])


def _write_png(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    pixels = np.rint(image * 255).astype(np.uint8).repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
    Image.fromarray(pixels).save(path)
