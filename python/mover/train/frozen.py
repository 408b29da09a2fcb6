"""Frozen towers run once: what they gave is taken from the feature cache, or computed and kept there.

`serve_frozen_towers` comes before the first batch of training and of evaluation. With it a step runs heads, temporal
layers and the objective only.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
from torch import Tensor

from mover.config import Config, DataConfig
from mover.data.clip import Clip
from mover.data.collate import Sample
from mover.data.dataset import ClipDataset
from mover.data.feature_cache import Fault, FeatureStore, TowerOutputs, caption_key, stored_bytes
from mover.data.fingerprint import Fingerprints
from mover.data.media_error import MediaError
from mover.data.progress import progress_bar
from mover.data.tokenizer import Tokenizer
from mover.errors import UserError
from mover.models.model import MoverModel
from mover.models.tower import Tower
from mover.train.device import autocast, to_device

_log = logging.getLogger("mover.train")
_TRIES = 3
_FILES_AT_ONCE = 256
Advance = Callable[[], None]
Read = tuple[bytes, Clip, Any] | None
"""Key, clip, and what was sampled from it or a Fault; None for a file that is not there any more."""


def serve_frozen_towers(
    model: MoverModel,
    config: Config,
    datasets: Sequence[ClipDataset],
    tokenizer: Tokenizer | None,
    device: torch.device,
    *,
    progress: bool,
    say: Callable[[str], None],
) -> None:
    """Let the datasets give outputs of frozen towers in place of frames, sound and tokens.

    Does nothing unless `data.cache` is "features". What is not in the cache yet is computed now, batch by batch of
    `evaluate.batch_size`, and kept after each: to stop costs one batch.

    Args:
        model: on `device`, with the weights it will be used with.
        config: of the run.
        datasets: all that batches will be made of, with one data section, which may name another manifest than
            the run's.
        tokenizer: of the run; needed for text.
        device: where the towers run.
        progress: whether to draw bars.
        say: takes a line for each frozen tower, before it runs: how many outputs there are and how many to compute; and
            one about the whole cache.

    Raises:
        UserError: the cache cannot be used, a file changes while it is read, or outputs that are not finite.
    """
    if config.data.cache != "features":
        return
    data = datasets[0].config
    folder = data.cache_path("feature")
    fingerprints = Fingerprints(folder / "fingerprints.json")
    served: dict[str, TowerOutputs] = {}
    try:
        for modality in config.frozen:
            tower = cast(Tower, model.towers[modality])
            settings = _settings(modality, data, tokenizer) | {
                "tower": tower.fingerprint(), "precision": config.train.precision
            }  # fmt: skip
            store = FeatureStore(folder, modality, tower.output_shape, settings)
            outputs = TowerOutputs(modality, store, fingerprints)
            filling = _Filling(tower, outputs, config, data, device, progress, say)
            using = [dataset for dataset in datasets if modality in dataset.modalities]
            if modality == "text":
                assert tokenizer is not None
                filling.captions((c for dataset in using for c in dataset.captions()[0]), tokenizer)
            else:
                filling.media([c for dataset in using for c in dataset.clips if c.present(modality)])
            served[modality] = outputs
    finally:
        _save(fingerprints)
    for dataset in datasets:
        dataset.serve(served)
    say(_sizes(folder, [outputs.store for outputs in served.values()]))


def _sizes(folder: Path, stores: Sequence[FeatureStore]) -> str:
    """How large the cache is, and how much of it belongs to other towers or settings."""
    mine = {store.folder for store in stores}
    rest = [size for place, size in stored_bytes(folder).items() if place not in mine]
    text = f"feature cache {folder}: {sum(store.size() for store in stores) / 1e6:.1f} MB for these towers"
    return text + (f", {sum(rest) / 1e6:.1f} MB for others or other settings (folders: {len(rest)})" if rest else "")


def _save(fingerprints: Fingerprints) -> None:
    try:
        fingerprints.save()
    except OSError as error:  # nothing is wrong without it: files are read once more next time
        _log.warning("%s cannot be written: %s.", fingerprints.memo, error.strerror)


def _settings(modality: str, data: DataConfig, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What of the data section decides what a tower is given."""
    if modality == "text":
        assert tokenizer is not None
        return {"tokenizer": tokenizer.fingerprint(), "max_tokens": data.max_tokens}
    decoder = {"decoder": f"PyAV {av.__version__}"}
    if modality == "audio":
        return {**decoder, "sample_rate": data.sample_rate, "audio_seconds": data.audio_seconds}
    frames = {"frames": data.frames} if modality == "video" else {}
    return {**decoder, **frames, "image_size": data.image_size}


@dataclass
class _Filling:
    """Computes what is missing in the cache of one tower."""

    tower: Tower
    outputs: TowerOutputs
    config: Config
    data: DataConfig
    device: torch.device
    progress: bool
    say: Callable[[str], None]

    def captions(self, texts: Iterable[str], tokenizer: Tokenizer) -> None:
        wanted = {caption_key(text): text for text in texts}
        missing = self._missing(wanted)
        missing.sort(key=lambda key: len(wanted[key]))  # of like length in a batch: little is padded
        with self._bar("text", len(missing)) as advance:
            for keys in _batches(missing, self.config.evaluate.batch_size):
                input_ids, attention_mask = tokenizer.encode([wanted[key] for key in keys])
                inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
                self._keep(keys, self._run(inputs), [wanted[key] for key in keys])
                for _ in keys:
                    advance()

    def media(self, clips: Sequence[Clip]) -> None:
        wanted = self._keys(clips)
        missing = self._missing(wanted)
        if missing:
            self._read_and_run([wanted[key] for key in missing])

    def _missing(self, wanted: Collection[bytes]) -> list[bytes]:
        missing = self.outputs.store.missing(wanted)
        found = len(wanted) - len(missing)
        self.say(f"frozen {self.outputs.modality} tower: {found} outputs found, {len(missing)} to compute")
        return missing

    def _keys(self, clips: Sequence[Clip]) -> dict[bytes, Clip]:
        """Key to a clip that has it, without clips whose file is not there."""

        def key(clip: Clip) -> bytes | None:
            try:
                return self.outputs.key(clip)
            except MediaError:
                return None

        wanted: dict[bytes, Clip] = {}
        with self._pool() as pool, progress_bar(f"{self.outputs.modality} files", len(clips), self.progress) as advance:
            for some in _batches(clips, _FILES_AT_ONCE):
                for clip, name in zip(some, pool.map(key, some), strict=True):
                    if name is not None:
                        wanted.setdefault(name, clip)
                    advance()
        return wanted

    def _read_and_run(self, clips: Sequence[Clip]) -> None:
        reader = ClipDataset(
            clips, self.data, (self.outputs.modality,), None,
            training=False, missing="drop", progress=False, others=self.config.model.others,
        )  # fmt: skip
        pool = self._pool()
        ahead: deque[list[Future[Read]]] = deque()
        try:
            with self._bar(self.outputs.modality, len(clips)) as advance:
                for places in _batches(range(len(clips)), self.config.evaluate.batch_size):
                    ahead.append([pool.submit(self._read, reader, place) for place in places])
                    if len(ahead) > 1:
                        self._finish(reader, ahead.popleft(), advance)
                while ahead:
                    self._finish(reader, ahead.popleft(), advance)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, reader: ClipDataset, place: int) -> Read:
        """What is sampled from a clip in evaluation, under the key of the very content it was sampled from."""
        clip = reader.clips[place]
        try:
            key = self.outputs.key(clip)
            for _ in range(_TRIES):
                try:
                    value = reader.draw(self.outputs.modality, place)
                except MediaError as error:
                    value = Fault(error.status, error.detail)
                before, key = key, self.outputs.key(clip, again=True)
                if before == key:
                    return key, clip, value
        except MediaError:
            return None
        raise UserError(f"{clip.media(self.outputs.modality)} changes while it is read. Wait until it is complete.")

    def _finish(self, reader: ClipDataset, batch: Sequence[Future[Read]], advance: Advance) -> None:
        """Run the tower over a batch that was read, and keep what it gives, and the faults."""
        read = [entry for entry in (job.result() for job in batch) if entry is not None]
        self.outputs.store.write({key: value for key, _, value in read if isinstance(value, Fault)})
        usable = [entry for entry in read if not isinstance(entry[2], Fault)]
        if usable:
            modality = self.outputs.modality
            inputs = reader.collate([Sample(clip.id, 0, {modality: value}) for _, clip, value in usable])[modality]
            self._keep([key for key, _, _ in usable], self._run(inputs), [clip.id for _, clip, _ in usable])
        for _ in batch:
            advance()

    def _run(self, inputs: dict[str, Tensor]) -> np.ndarray:
        with torch.no_grad(), autocast(self.config.train.precision, self.device):
            return np.asarray(self.tower.body_output(**to_device(inputs, self.device)).cpu().numpy())

    def _keep(self, keys: Sequence[bytes], outputs: np.ndarray, names: Sequence[str]) -> None:
        for name, output in zip(names, outputs, strict=True):
            if not np.isfinite(output).all():
                raise UserError(
                    f"The frozen {self.outputs.modality} tower gives values that are not finite for '{name:.80}'. "
                    "Set train.precision to float32, or check its weights."
                )
        self.outputs.store.write(dict(zip(keys, outputs, strict=True)))

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max(1, self.data.workers), thread_name_prefix="mover-features")

    def _bar(self, what: str, count: int) -> Any:
        return progress_bar(f"frozen {what} tower", count, self.progress and count > 0)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))
