"""Measurements of cells with notes: the breast-cancer data that ship with scikit-learn, described by rule.

A stand-in for pairs of medical images and reports. 569 samples of breast tissue have 30 measurements of their cell
nuclei; the note on a sample tells seven of them, in four levels that are equally frequent in training: size,
coarseness, unevenness of the outline, notches, asymmetry, irregularity, and how much the sizes differ. It gives no
number, and it says neither the diagnosis, which is the label, nor anything of the 23 other measurements.

measurements.npy  float32 (clips, 30), row i is clip i; each column less the mean of the training clips, over their
                  standard deviation
manifest.jsonl    a sample per row, its measurements under `others`; the label is benign or malignant
tokenizer.json    byte-level BPE trained on the training notes
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

NAME = "mover-notes"
VERSION = 1
"""Raised whenever equal settings would give other measurements, notes or labels."""

NOTES = 8
"""Notes on a training clip."""

FINDINGS = (
    Finding("mean radius", (("nuclei are small", "small nuclei"), ("nuclei are fairly small",),
                            ("nuclei are fairly large",), ("nuclei are large", "large nuclei"))),
    Finding("mean texture", (("fine, even chromatin", "chromatin is even"), ("chromatin is fairly even",),
                             ("chromatin is fairly coarse",), ("coarse chromatin", "chromatin is coarse"))),
    Finding("mean smoothness", (("smooth outlines", "outlines are smooth"), ("outlines are fairly smooth",),
                                ("outlines are fairly uneven",), ("uneven outlines", "outlines are uneven"))),
    Finding("mean concave points", (("no notches", "free of notches"), ("few notches",), ("some notches",),
                                    ("many notches", "deeply notched"))),
    Finding("mean symmetry", (("symmetric", "both halves alike"), ("fairly symmetric",), ("fairly asymmetric",),
                              ("asymmetric", "halves differ"))),
    Finding("mean fractal dimension", (("simple contour", "contour is simple"), ("contour is fairly simple",),
                                       ("contour is fairly ragged",), ("ragged contour", "contour is ragged"))),
    Finding("radius error", (("of one size", "all of a size"), ("sizes differ a little",), ("sizes differ",),
                             ("sizes differ widely", "of many sizes"))),
)  # fmt: skip
"""Named as scikit-learn names the measurements."""

_SPLITS, _WORDS = 0, 1


def make_notes(out: Path, *, train: int = 369, validation: int = 100, test: int = 100, seed: int = 0) -> Path:
    """Make the folder `out`; gives the path of its manifest. Equal arguments give equal bytes.

    train, validation, test: clips per split, together at most 569. Training clips have eight notes, each of which may
    leave findings out; the others have one that says all.
    Raises UserError for counts that cannot be met.
    """
    from sklearn.datasets import load_breast_cancer

    counts = {"train": train, "val": validation, "test": test}
    bunch = load_breast_cancer()
    dealt = deal(len(bunch.target), counts, "samples", generator(seed, _SPLITS))
    values = bunch.data[[item for item, _ in dealt]]  # (n, 30)
    labels = bunch.target_names[bunch.target[[item for item, _ in dealt]]]
    splits = [split for _, split in dealt]
    columns = [list(bunch.feature_names).index(finding.name) for finding in FINDINGS]

    def fill(folder: Path) -> None:
        training = np.array(splits) == "train"
        found = np.stack([levels(values[:, column], training, 4) for column in columns], axis=1)
        deviation = values[training].std(0)
        rows = (values - values[training].mean(0)) / np.where(deviation > 0, deviation, 1)
        path = folder / "measurements.npy"
        np.save(path, rows.astype(np.float32))
        clips = []
        for i, split in enumerate(splits):
            random = generator(seed, _WORDS, i)
            full = split != "train"
            notes = [describe(found[i], random, full=full) for _ in range(1 if full else NOTES)]
            clips.append(
                Clip(
                    f"sample{i}",
                    tuple(dict.fromkeys(notes)),
                    split=split,
                    label=str(labels[i]),
                    source=NAME,
                    others={"measurements": Reference(path, i)},
                )
            )
        write_manifest(folder / MANIFEST, clips)
        texts = [note for clip in clips if clip.split == "train" for note in clip.captions]
        Tokenizer.train(texts, max_tokens=64).save(folder / "tokenizer.json")

    return make_folder(out, {"name": NAME, "version": VERSION, "seed": seed, **counts}, fill)


def describe(item: np.ndarray, random: np.random.Generator, *, full: bool) -> str:
    """One note on a sample whose findings have these levels."""
    text = "; ".join(said(FINDINGS, item.tolist(), random, full=full))
    return text[0].upper() + text[1:] + "."
