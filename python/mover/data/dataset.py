"""The clips of one split as samples: which clips can be used, and what is drawn from each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mover.config import BUILT_IN, DataConfig
from mover.data.collate import Collate, Sample, window_length
from mover.data.decoded import Decoded, MemoryStore, decode_pcm
from mover.data.feature_cache import TowerOutputs
from mover.data.limits import Limits
from mover.data.manifest import Clip
from mover.data.media import MediaError, read_video
from mover.data.media_cache import DiskStore, Stored
from mover.data.others import Others, check_kinds, read_other
from mover.data.sampling import CAPTION, FRAMES, WINDOW, cut_window, frame_times, generator
from mover.data.tokenizer import Tokenizer
from mover.errors import UserError

_log = logging.getLogger("mover.data")


class ClipDataset:
    """Samples of the clips that have every modality of the run, or some of them.

    clips: the clips of one split (`select_split`).
    config: what is read and how. modalities: those of the run. tokenizer: needed for text. others: the section under
        `model.others` of every other modality than text, video and audio.
    training: True: captions, frames and audio windows are drawn from (seed, epoch, position), and a clip that cannot be
        used is left out, with a warning that names it; with `config.missing` "mask" a clip is used as long as it has
        one modality. False: the first caption and the middle of everything, and a clip that lacks a modality is an
        error (`missing="fail"`) or left out and counted (`missing="drop"`).
    Attributes: `clips`, those usable as far as the manifest knows, in order; `listed`, how many were given; `skipped`,
    id to reason of every clip found unusable so far: after one pass over the data, N = listed - len(skipped);
    `absent`, modality to id to reason, what clips in use were found to lack so far.

    Raises UserError for clips marked unusable in the manifest under `missing="fail"`, and when no clip is left, or
    none that has a certain modality.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        config: DataConfig,
        modalities: Sequence[str],
        tokenizer: Tokenizer | None,
        *,
        training: bool,
        seed: int = 0,
        missing: str = "fail",
        progress: bool = True,
        others: Others | None = None,
    ) -> None:
        if "text" in modalities and tokenizer is None:
            raise UserError("The run uses text, and no tokenizer was given. Load one with Tokenizer.for_data(config).")
        self.config, self.modalities, self.seed = config, tuple(modalities), seed
        self.others = {name: tower for name, tower in (others or {}).items() if name in self.modalities}
        unknown = [name for name in self.modalities if name not in BUILT_IN and name not in self.others]
        if unknown:
            raise ValueError(f"Expected a section of `others` for each of {unknown}.")
        check_kinds(clips, self.others)
        self.training, self.missing = training, missing
        self.masking = training and config.missing == "mask"
        self.listed = len(clips)
        self.skipped: dict[str, str] = {}
        self.absent: dict[str, dict[str, str]] = {modality: {} for modality in self.modalities}
        self.collate = Collate(modalities, tokenizer, config, self.others)
        self._progress = progress
        self._lock = threading.Lock()
        self._failed: dict[tuple[int, str], MediaError] = {}
        self._store: MemoryStore | DiskStore | None = None
        self.outputs: Mapping[str, TowerOutputs] = {}
        self.clips: list[Clip] = []
        for clip in clips:
            faults = self._faults(clip)
            if not faults or (self.masking and len(faults) < len(self.modalities)):
                self.clips.append(clip)
                for modality, fault in faults.items():
                    self.absent[modality][clip.id] = fault
            else:
                self._skip(clip, ", ".join(faults.values()) if self.masking else next(iter(faults.values())))
        if not self.clips:
            last = self.skipped[clips[-1].id] if clips else "none was given"
            raise UserError(
                f"None of {self.listed} clips can be used; the last one: {last}. "
                "Check the manifest and the media it names."
            )
        for modality, without in self.absent.items():
            if len(without) == len(self.clips):
                raise UserError(
                    f"None of {self.listed} clips has {'a caption' if modality == 'text' else modality}. "
                    "Check the manifest, or leave the modality out of 'modalities'."
                )

    def __len__(self) -> int:
        return len(self.clips)

    def _faults(self, clip: Clip) -> dict[str, str]:
        """What the manifest says a clip lacks: modality to reason."""
        faults = {}
        for modality in self.modalities:
            if not clip.present(modality):
                state = "missing" if modality == "text" else clip.status.get(modality, "missing")
                name = "caption" if modality == "text" else modality
                faults[modality] = f"{name} {'missing' if state == 'ok' else state}"
        return faults

    def _skip(self, clip: Clip, reason: str) -> None:
        """Count a clip as unusable, or raise UserError where that is not allowed."""
        if not self.training and self.missing != "drop":
            raise UserError(
                f"Clip '{clip.id}' of the split '{clip.split}' cannot be evaluated: {reason}. "
                "Set evaluate.missing to drop to leave such clips out, or to mask to leave them out only of the "
                "directions that need what they lack; the report then says how many."
            )
        with self._lock:
            fresh = clip.id not in self.skipped
            self.skipped[clip.id] = reason
            for reasons in self.absent.values():
                reasons.pop(clip.id, None)
        if fresh:
            _log.warning("Clip '%s' is left out: %s", clip.id, reason)

    def _lacks(self, clip: Clip, modality: str, reason: str) -> None:
        """Count a clip that is used without `modality`, or raise UserError where that is the last one that had it."""
        with self._lock:
            fresh = clip.id not in self.absent[modality]
            self.absent[modality][clip.id] = reason
            lost = fresh and len(self.absent[modality]) + len(self.skipped) >= len(self.clips)  # at most these are left
            lost = lost and len(self.absent[modality]) == sum(other.id not in self.skipped for other in self.clips)
        if lost:
            raise UserError(
                f"None of {self.listed} clips has {modality} that can be used; the last one, '{clip.id}': {reason} "
                "Repair the files, or leave the modality out of 'modalities'."
            )
        if fresh:
            _log.warning("Clip '%s' is used without %s: %s", clip.id, modality, reason)

    def serve(self, outputs: Mapping[str, TowerOutputs]) -> None:
        """From now on, samples hold what the towers of these modalities gave for the draws of evaluation: the middle of
        a clip, or a caption, which is drawn as ever."""
        self.outputs = {modality: outputs[modality] for modality in self.modalities if modality in outputs}
        self.collate.served = {modality: entry.store.shape for modality, entry in self.outputs.items()}

    def prepare(self) -> None:
        """With a cache, decode every clip now that is not in it. The loader calls it; a second call does nothing."""
        if self._store is not None:
            return
        if self.config.cache == "memory":
            self._store = MemoryStore(self.clips, self.config, self.modalities, self.others, self._progress)
        elif self.config.cache == "disk":
            self._store = DiskStore(self.clips, self.config, self.modalities, self._progress)

    def captions(self) -> tuple[list[str], np.ndarray]:
        """All captions of all usable clips, in order, and int64 (C,): the position in `clips` of each one's owner."""
        texts = [caption for clip in self.clips for caption in clip.captions]
        owners = [index for index, clip in enumerate(self.clips) for _ in clip.captions]
        return texts, np.array(owners, dtype=np.int64)

    def sample(self, index: int, epoch: int = 0, modalities: Sequence[str] | None = None) -> Sample | None:
        """Draw from clip `index` some of the modalities of the run, None all; the same arguments always give the same
        sample, with or without the cache.

        None for a clip that cannot be decoded, which then counts as skipped. Raises UserError for it under
        `missing="fail"`. When masking, a clip is sampled without what cannot be decoded, unless nothing can.
        """
        clip = self.clips[index]
        drawn: dict[str, Any] = {}
        reasons = []
        for modality in self.modalities if modalities is None else modalities:
            if not clip.present(modality):
                continue
            try:
                drawn[modality] = self.draw(modality, index, epoch)
            except MediaError as error:
                self._failed[index, modality] = error
                reasons.append(str(error))
                if not self.masking:
                    break
        if not drawn or (reasons and not self.masking):
            self._skip(clip, "; ".join(dict.fromkeys(reasons)))
            return None
        for modality in self.modalities:
            if (index, modality) in self._failed:
                self._lacks(clip, modality, str(self._failed[index, modality]))
        return Sample(clip.id, index, drawn)

    def _random(self, purpose: int, epoch: int, index: int) -> np.random.Generator | None:
        return generator(self.seed, purpose, epoch, index) if self.training else None

    def draw(self, modality: str, index: int, epoch: int = 0) -> Any:
        """What `Sample.values` holds of a modality that clip `index` has. Raises MediaError."""
        clip, served = self.clips[index], self.outputs.get(modality)
        if modality == "text":
            random = self._random(CAPTION, epoch, index)
            caption = clip.captions[0 if random is None else int(random.integers(len(clip.captions)))]
            return caption if served is None else served.of_caption(caption)
        stored = None if self._store is None else self._store.entries[index]
        failed = self._failed.get((index, modality)) or (stored and stored.faults.get(modality))
        if failed:
            raise failed
        if served is not None:
            return served.of(clip)
        if modality == "video":
            return self._frames(clip, stored, self._random(FRAMES, epoch, index))
        if modality in self.others:
            if isinstance(stored, Decoded):
                return stored.others[modality]
            return read_other(
                clip.others[modality], self.others[modality], self.config.image_size, Limits.of(self.config)
            )
        window = window_length(self.config)
        return cut_window(self._pcm(clip, stored), window, self._random(WINDOW, epoch, index))

    def _frames(self, clip: Clip, stored: Decoded | Stored | None, random: np.random.Generator | None) -> np.ndarray:
        """uint8 (F, 3, S, S)."""
        count = self.config.frames
        if stored is not None and stored.video is not None:
            return stored.video.at(frame_times(stored.video.duration, count, random))
        assert clip.video is not None
        video = read_video(
            clip.video,
            self.config.image_size,
            lambda duration: frame_times(duration, count, random),
            start=clip.start,
            duration=clip.duration,
            limits=Limits.of(self.config),
        )
        return video.pixels

    def _pcm(self, clip: Clip, stored: Decoded | Stored | None) -> np.ndarray:
        """int16 (n,)."""
        pcm = None if stored is None else stored.pcm
        if pcm is not None:
            return pcm
        assert clip.audio is not None
        return decode_pcm(clip, self.config)
