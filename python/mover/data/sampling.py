"""Choosing what of a clip is seen and heard, and in which order clips come.

Everything random is drawn from a generator keyed by integers (seed, purpose, epoch, clip, …), never from a stream that
is passed along: any step of any run can be drawn again without the steps before it.
"""

from __future__ import annotations

import numpy as np

ORDER, CAPTION, FRAMES, WINDOW, SUBSTITUTE, ALIGNED, SHUFFLE, DIAGNOSTICS, OBJECTIVE, DROPOUT = range(10)
"""Purposes: the second part of a key, so that draws for one purpose never depend on those for another."""


def generator(seed: int, *key: int) -> np.random.Generator:
    """The random generator of a key; equal keys give equal draws. Integers must be at least 0."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *key))))


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """int64 (count,): a permutation of all clips, a new one for each epoch."""
    return generator(seed, ORDER, epoch).permutation(count)


def frame_times(duration: float, frames: int, random: np.random.Generator | None) -> np.ndarray:
    """float64 (frames,): a time in each of `frames` equal parts of [0, duration): the middle, or drawn uniformly."""
    within = np.full(frames, 0.5) if random is None else random.random(frames)
    return (np.arange(frames) + within) * (duration / frames)


def window_start(count: int, window: int, random: np.random.Generator | None) -> int:
    """First sample of a window of `window` out of `count` samples: the middle one, or drawn uniformly; 0 if it fits."""
    spare = max(0, count - window)
    return spare // 2 if random is None else int(random.integers(spare + 1))


def cut_window(pcm: np.ndarray, window: int, random: np.random.Generator | None) -> tuple[np.ndarray, int]:
    """A window of samples, same dtype, (window,), zero-padded at the end, and how many of them are real."""
    start = window_start(len(pcm), window, random)
    piece = pcm[start : start + window]
    if len(piece) == window:
        return piece, window
    padded = np.zeros(window, pcm.dtype)
    padded[: len(piece)] = piece
    return padded, len(piece)
