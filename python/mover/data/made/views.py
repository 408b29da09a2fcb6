"""Feature vectors that are noisy views of one latent: the smallest data on which retrieval between modalities is hard.

    z_i ~ N(0, I) of 16 dimensions    x^v_i = A_v z_i + noise · e^v_i, 48 numbers    A_v, e^v of standard normals,
                                                                                     A_v divided by the root of 16

Every view tells the whole latent, in coordinates of its own and with noise of its own. The maps A_v belong to the
seed, as do the latents of all splits; nothing else is shared between clips.

view1.npy …      float32 (clips, 48), row i is clip i
manifest.jsonl   a clip per row, its views under `others`
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mover.data.clip import Clip, Reference
from mover.data.made.folder import MANIFEST, make_folder
from mover.data.manifest import write_manifest
from mover.data.sampling import generator
from mover.errors import UserError

NAME = "mover-views"
VERSION = 1
"""Raised whenever equal settings would give other numbers."""

LATENT = 16
WIDTH = 48
NOISE = 0.5

_LATENTS, _MAP, _NOISE = 0, 1, 2


def make_views(
    out: Path,
    *,
    train: int = 1000,
    validation: int = 500,
    test: int = 500,
    views: int = 3,
    noise: float = NOISE,
    seed: int = 0,
) -> Path:
    """Make the folder `out`; gives the path of its manifest.

    train, validation, test: clips per split. views: modalities, view1 to viewN. noise: standard deviation of the noise;
    that of a view without it is about 1. Equal arguments give equal bytes.
    Raises UserError for counts below 1, fewer than two views, and noise that is negative or not finite.
    """
    counts = {"train": train, "val": validation, "test": test}
    for split, count in counts.items():
        if count < 1:
            raise UserError(f"The number of {split} clips must be at least 1, got {count}.")
    if views < 2:
        raise UserError(f"Retrieval needs at least two views, got {views}.")
    if not (np.isfinite(noise) and noise >= 0):
        raise UserError(f"The noise is a standard deviation, a number of at least 0; got {noise}.")
    settings = {"name": NAME, "version": VERSION, "seed": seed, **counts, "views": views, "noise": float(noise)}

    def fill(folder: Path) -> None:
        splits = [split for split, count in counts.items() for _ in range(count)]
        names = [f"view{v}" for v in range(1, views + 1)]
        for name, rows in zip(names, draw_views(len(splits), views, noise, seed), strict=True):
            np.save(folder / f"{name}.npy", rows)
        clips = [
            Clip(
                id=f"item{i}",
                split=split,
                source=NAME,
                others={name: Reference(folder / f"{name}.npy", i) for name in names},
            )
            for i, split in enumerate(splits)
        ]
        write_manifest(folder / MANIFEST, clips)

    return make_folder(out, settings, fill)


def draw_views(count: int, views: int, noise: float, seed: int) -> list[np.ndarray]:
    """The views of `count` items, float32 (count, 48) each. Further views leave the others as they are."""
    latent = generator(seed, _LATENTS).standard_normal((count, LATENT))
    drawn = []
    for v in range(views):
        mix = generator(seed, _MAP, v).standard_normal((LATENT, WIDTH)) / np.sqrt(LATENT)
        added = generator(seed, _NOISE, v).standard_normal((count, WIDTH))
        drawn.append((latent @ mix + noise * added).astype(np.float32))
    return drawn
