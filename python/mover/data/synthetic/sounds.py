"""Scenes as sound: one voice in a rhythm over a noise, made from sums of sinusoids and shaped noise."""

from __future__ import annotations

import numpy as np

from mover.data.synthetic.design import AMBIENCES, PATTERNS, SAMPLE_RATE, SECONDS, TIMBRES, Scene

FUNDAMENTALS = (1240.0, 560.0, 250.0)
"""Hz, in the order of PITCHES: small things sound high. More than an octave lies between neighbours."""

COUNT = round(SECONDS * SAMPLE_RATE)

_HARMONICS: dict[str, tuple[tuple[float, float], ...]] = {
    "pure": ((1, 1.0),),
    "hollow": tuple((k, 1.0 / k**0.7) for k in range(1, 18, 2)),
    "buzzing": tuple((k, 1.0 / k**0.4) for k in range(1, 30)),
    "bell": ((1, 0.6), (2.76, 1.0), (5.4, 0.8), (8.93, 0.6)),
    "organ": ((1, 1.0), (2, 0.9), (4, 0.9), (8, 0.8)),
    "warbling": ((1, 1.0), (2, 0.5)),
    "rough": ((1, 1.0), (2, 0.7), (3, 0.5)),
    "chirping": ((1, 1.0),),
    "chord": ((1, 1.0), (1.26, 1.0), (1.5, 1.0)),
}
"""Partials of a timbre: frequency as a multiple of the fundamental, amplitude. "breathy" is noise."""


def play(scene: Scene, random: np.random.Generator) -> np.ndarray:
    """float32 (COUNT,) in [-1, 1]: the sound of a scene; `random` tunes and times it."""
    times = np.arange(COUNT) / SAMPLE_RATE
    timbre, pattern = TIMBRES[scene.shape], PATTERNS[scene.motion]
    fundamental = FUNDAMENTALS[scene.size] * 2 ** random.uniform(-0.08, 0.08)
    frequency = fundamental * _bend(pattern, times, random) * _wobble(timbre, times, random)  # (COUNT,), Hz
    voice = _noise_band(frequency, times, random) if timbre == "breathy" else _partials(timbre, frequency, random)
    if timbre == "rough":
        voice = voice * (0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 32 * times)))
    voice = voice / np.sqrt(np.mean(voice**2) + 1e-12)
    loudness = 0.13 * random.uniform(0.8, 1.2)
    mixed = loudness * voice * _envelope(pattern, times, random) + _ambience(AMBIENCES[scene.background], random)
    return (mixed / max(1.0, float(np.abs(mixed).max()) / 0.98)).astype(np.float32)


def _partials(timbre: str, frequency: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float64 (COUNT,): the partials of a timbre, those above 7.6 kHz left out, with random phases."""
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    top = float(frequency.max())
    audible = [(multiple, level) for multiple, level in _HARMONICS[timbre] if multiple * top < 7600]
    start = random.uniform(0, 2 * np.pi, size=len(audible))
    voice = np.zeros(COUNT)
    for (multiple, level), offset in zip(audible, start, strict=True):
        voice += level * np.sin(multiple * phase + offset)
    return voice


def _noise_band(frequency: np.ndarray, times: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float64 (COUNT,): noise about half an octave wide around a frequency that may move."""
    width = 0.2 * float(frequency.mean())
    slow = _filtered(random, 0, width, 2)  # (2, COUNT): in-phase and quadrature part
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    return slow[0] * np.cos(phase) + slow[1] * np.sin(phase)


def _filtered(random: np.random.Generator, low: float, high: float, count: int = 1) -> np.ndarray:
    """float64 (count, COUNT): noise of unit power between two frequencies in Hz."""
    spectrum = np.fft.rfft(random.standard_normal((count, COUNT)))
    frequencies = np.fft.rfftfreq(COUNT, 1 / SAMPLE_RATE)
    spectrum[:, (frequencies < low) | (frequencies > high)] = 0
    noise = np.fft.irfft(spectrum, COUNT)
    return noise / np.sqrt(np.mean(noise**2, axis=1, keepdims=True))


def _bend(pattern: str, times: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float64 (COUNT,): factor of the frequency over time, for the patterns that are melodies."""
    phase = random.uniform(0, 1)
    if pattern == "alternating":
        return np.where((times * 2 + phase) % 1 < 0.5, 1.22, 1 / 1.22)
    if pattern == "gliding":
        return 2 ** (0.4 * np.sin(2 * np.pi * (times + phase)))
    return np.ones(COUNT)


def _wobble(timbre: str, times: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float64 (COUNT,): factor of the frequency over time, for the timbres that move in pitch."""
    phase = random.uniform(0, 1)
    if timbre == "warbling":
        return 2 ** (0.12 * np.sin(2 * np.pi * (7 * times + phase)))
    if timbre == "chirping":
        return 2 ** (((10 * times + phase) % 1) * 1.0 - 0.5)
    return np.ones(COUNT)


def _envelope(pattern: str, times: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float64 (COUNT,) in [0, 1]: loudness over time, with edges of 8 ms."""
    phase = random.uniform(0, 1)
    if pattern == "swelling":
        return np.sin(np.pi * (times / SECONDS + phase)) ** 4
    if pattern == "slow":
        on = (times * 1.5 + phase) % 1 < 0.5
    elif pattern == "fast":
        on = (times * 6 + phase) % 1 < 0.5
    elif pattern == "pairs":
        beat = (times + phase) % 1
        on = (beat < 0.1) | ((beat >= 0.2) & (beat < 0.3))
    elif pattern == "single":
        start = 0.1 + phase * (SECONDS - 0.5)
        on = (times >= start) & (times < start + 0.3)
    else:
        return np.ones(COUNT)
    edge = round(0.008 * SAMPLE_RATE)
    total = np.cumsum(np.concatenate([np.zeros(edge), on]))
    return (total[edge:] - total[:-edge]) / edge


def _ambience(name: str, random: np.random.Generator) -> np.ndarray:
    """float64 (COUNT,): the noise a scene lies in."""
    level = random.uniform(0.8, 1.2)
    if name == "rumble":
        return 0.06 * level * _filtered(random, 25, 110)[0]
    if name == "hiss":
        return 0.02 * level * _filtered(random, 4500, 7800)[0]
    if name == "crackle":
        clicks = np.zeros(COUNT)
        places = random.integers(0, COUNT - 64, size=36)
        for place, height in zip(places, random.uniform(0.25, 0.6, size=36), strict=True):
            clicks[place : place + 64] += level * height * random.standard_normal(64) * np.exp(-np.arange(64) / 14)
        return clicks
    return 0.001 * level * _filtered(random, 50, 7000)[0]
