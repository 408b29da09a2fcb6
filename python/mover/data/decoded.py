"""A clip decoded whole, for repeated sampling, and the store that keeps all of them in memory."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

import numpy as np

from mover.config import DataConfig
from mover.data.limits import Limits
from mover.data.manifest import Clip
from mover.data.media import MediaError, Video, read_pcm, read_video
from mover.data.others import Others, read_other
from mover.data.progress import progress_bar
from mover.errors import UserError


@dataclass(frozen=True)
class Decoded:
    """The frames at the run's image size, all samples at its sample rate, and what `read_other` gives of the others.

    None, or no entry, for a modality that is not in the run, that the clip lacks or that could not be read; `faults`
    tells why not.
    """

    video: Video | None = None
    pcm: np.ndarray | None = None
    others: dict[str, np.ndarray] = field(default_factory=dict)
    faults: dict[str, MediaError] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Memory held."""
        frames = 0 if self.video is None else self.video.pixels.nbytes
        features = sum(array.nbytes for array in self.others.values())
        return frames + (0 if self.pcm is None else self.pcm.nbytes) + features


def decode_clip(clip: Clip, config: DataConfig, modalities: Sequence[str], others: Others | None = None) -> Decoded:
    """Read everything of a clip that the run uses; `others`: the sections of its modalities under `model.others`."""
    video = pcm = None
    arrays, faults = {}, {}
    if "video" in modalities and clip.video is not None and clip.present("video"):
        try:
            video = decode_video(clip, config)
        except MediaError as error:
            faults["video"] = error
    if "audio" in modalities and clip.audio is not None and clip.present("audio"):
        try:
            pcm = decode_pcm(clip, config)
        except MediaError as error:
            faults["audio"] = error
    for name, tower in (others or {}).items():
        if clip.present(name):
            try:
                arrays[name] = read_other(clip.others[name], tower, config.image_size, Limits.of(config))
            except MediaError as error:
                faults[name] = error
    return Decoded(video, pcm, arrays, faults)


def decode_video(clip: Clip, config: DataConfig) -> Video:
    """The frames of a clip that has a video: all, or at most `cache_frames_per_second`. Raises MediaError."""
    path = clip.video
    assert path is not None
    rate, limits, choose = config.cache_frames_per_second, Limits.of(config), None
    if rate is not None:

        def choose(duration: float) -> np.ndarray:
            """Times of as many frames per second, from the first on."""
            limits.check_bytes(path, duration * rate * 3 * config.image_size**2, "frames")
            return np.arange(max(1, math.ceil(duration * rate))) / rate

    video = read_video(path, config.image_size, choose, start=clip.start, duration=clip.duration, limits=limits)
    if rate is None:
        return video
    fresh = [True, *(not np.array_equal(a, b) for a, b in itertools.pairwise(video.pixels))]  # few frames, often shown
    return Video(video.pixels[fresh], video.times[fresh], video.duration)


def decode_pcm(clip: Clip, config: DataConfig) -> np.ndarray:
    """All samples of a clip that has audio. Raises MediaError."""
    assert clip.audio is not None
    return read_pcm(clip.audio, config.sample_rate, start=clip.start, duration=clip.duration, limits=Limits.of(config))


class MemoryStore:
    """Every clip of a dataset, decoded once by `config.workers` threads.

    entries: position to what was decoded.
    Raises UserError as soon as it is clear that the clips will not fit into this machine's memory.
    """

    def __init__(
        self, clips: Sequence[Clip], config: DataConfig, modalities: Sequence[str], others: Others, progress: bool
    ) -> None:
        self.entries: dict[int, Decoded] = {}
        self._total = 0
        limit = 0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

        def decode(index: int) -> tuple[int, Decoded]:
            return index, decode_clip(clips[index], config, modalities, others)

        pool = ThreadPoolExecutor(max(1, config.workers), thread_name_prefix="mover-decode")
        try:
            with progress_bar("decoding clips", len(clips), progress) as advance:
                for job in as_completed([pool.submit(decode, index) for index in range(len(clips))]):
                    index, entry = job.result()
                    self._add(index, entry, len(clips), limit)
                    advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _add(self, index: int, entry: Decoded, count: int, limit: float) -> None:
        self.entries[index] = entry
        self._total += entry.bytes
        expected = self._total / len(self.entries) * count
        if self._total > limit or (len(self.entries) == 16 and expected > limit):
            raise UserError(
                f"data.cache: {count} clips would take about {expected / 1e9:.1f} GB decoded, and this machine has "
                f"{limit / 1e9:.1f} GB for them. Set data.cache to disk or none, or data.image_size to less."
            )
