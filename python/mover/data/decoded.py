"""A clip decoded whole, for repeated sampling, and the store that keeps all of them in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np

from mover.config import DataConfig
from mover.data.manifest import Clip
from mover.data.media import MediaError, Video, read_pcm, read_video
from mover.data.progress import progress_bar
from mover.errors import UserError


@dataclass(frozen=True)
class Decoded:
    """All frames at the run's image size and all samples at its sample rate; None for a modality not in the run."""

    video: Video | None
    pcm: np.ndarray | None

    @property
    def bytes(self) -> int:
        """Memory held."""
        frames = 0 if self.video is None else self.video.pixels.nbytes
        return frames + (0 if self.pcm is None else self.pcm.nbytes)


def decode_clip(clip: Clip, config: DataConfig, modalities: Sequence[str]) -> Decoded:
    """Read everything of a clip that the run uses. Raises MediaError."""
    video = pcm = None
    if "video" in modalities and clip.video is not None:
        video = read_video(clip.video, config.image_size, start=clip.start, duration=clip.duration)
    if "audio" in modalities and clip.audio is not None:
        pcm = read_pcm(clip.audio, config.sample_rate, start=clip.start, duration=clip.duration)
    return Decoded(video, pcm)


class MemoryStore:
    """Every clip of a dataset, decoded once by `config.workers` threads.

    entries: position to what was decoded, or to the MediaError that decoding raised.
    Raises UserError as soon as it is clear that the clips will not fit into this machine's memory.
    """

    def __init__(self, clips: Sequence[Clip], config: DataConfig, modalities: Sequence[str], progress: bool) -> None:
        self.entries: dict[int, Decoded | MediaError] = {}
        self._total = 0
        limit = 0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

        def decode(index: int) -> tuple[int, Decoded | MediaError]:
            try:
                return index, decode_clip(clips[index], config, modalities)
            except MediaError as error:
                return index, error

        pool = ThreadPoolExecutor(max(1, config.workers), thread_name_prefix="mover-decode")
        try:
            with progress_bar("decoding clips", len(clips), progress) as advance:
                for job in as_completed([pool.submit(decode, index) for index in range(len(clips))]):
                    index, entry = job.result()
                    self._add(index, entry, len(clips), limit)
                    advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _add(self, index: int, entry: Decoded | MediaError, count: int, limit: float) -> None:
        self.entries[index] = entry
        self._total += entry.bytes if isinstance(entry, Decoded) else 0
        expected = self._total / len(self.entries) * count
        if self._total > limit or (len(self.entries) == 16 and expected > limit):
            raise UserError(
                f"data.cache: {count} clips would take about {expected / 1e9:.1f} GB decoded, and this machine has "
                f"{limit / 1e9:.1f} GB for them. Set data.cache to none, or data.image_size to less."
            )
