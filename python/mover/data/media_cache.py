"""Decoded media on disk: frames at the run's image size and samples at its rate, one file for each part of a clip.

A file is called after the content it was made from and the settings it was made with, so one that no longer fits is not
found, and made anew. Only the frames that a sample needs are read. Processes may share a folder: files are written
aside and renamed. What is damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np

from mover.config import DataConfig
from mover.data.decoded import decode_pcm, decode_video
from mover.data.fingerprint import Fingerprints
from mover.data.manifest import Clip
from mover.data.media import MediaError, Video, shown_at
from mover.data.progress import progress_bar
from mover.errors import UserError

_log = logging.getLogger("mover.data")
_VERSION = 1
"""Raised whenever the same file and settings would be decoded to something else."""
_FIRST = 16
"""Files to write before the size of all is estimated for the first time."""

Tensors = dict[str, np.ndarray]


class StoredVideo:
    """Frames of a clip in a file; like `mover.data.media.Video`, but that they stay there."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._duration: float | None = None

    @property
    def duration(self) -> float:
        """Seconds."""
        if self._duration is None:
            self._duration = self._file.read(lambda opened: float(opened.get_tensor("duration")[0]))
        return self._duration

    def at(self, times: np.ndarray) -> np.ndarray:
        """uint8 (T, 3, S, S): the frames on screen at these times (T,); no others are read."""

        def read(opened: Any) -> np.ndarray:
            places = shown_at(opened.get_tensor("times"), times)
            frames = opened.get_slice("frames")
            return np.concatenate([frames[place : place + 1] for place in places.tolist()])

        result: np.ndarray = self._file.read(read)
        return result


class Stored:
    """What the cache has of a clip; like `mover.data.decoded.Decoded`.

    video: None where it is not in the run, the clip lacks it, or it could not be read. faults: modality to why not.
    """

    def __init__(self) -> None:
        self.video: StoredVideo | None = None
        self.faults: dict[str, MediaError] = {}
        self._pcm: _File | None = None

    @property
    def pcm(self) -> np.ndarray | None:
        """int16 (n,), read now."""
        return None if self._pcm is None else self._pcm.read(lambda opened: opened.get_tensor("pcm"))


class _File:
    """A file of the cache and how to make it."""

    def __init__(self, path: Path, make: Callable[[], Tensors]) -> None:
        self.path, self._make = path, make

    def fill(self) -> int:
        """Make the file; gives its bytes. Raises MediaError, and OSError when it cannot be written."""
        return _write(self.path, self._make())

    def read(self, part: Callable[[Any], Any]) -> Any:
        """What `part` takes from the opened file. One that is gone or damaged is made again. Raises MediaError."""
        from safetensors.numpy import safe_open

        try:
            with safe_open(self.path, framework="numpy") as opened:
                return part(opened)
        except Exception as error:  # the library has errors of its own, and a damaged file may raise any
            _log.warning("The cached %s cannot be read (%s) and is made again.", self.path, error)
        tensors = self._make()
        try:
            _write(self.path, tensors)
        except OSError as error:
            _log.warning("%s cannot be written: %s. The run goes on without it.", self.path, error.strerror or error)
        return part(_InMemory(tensors))


class _InMemory:
    """Tensors with the interface of an opened file."""

    def __init__(self, tensors: Tensors) -> None:
        self.get_tensor = self.get_slice = tensors.__getitem__


def _write(path: Path, tensors: Tensors) -> int:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
    os.close(handle)
    try:
        save_file(tensors, aside)
        os.chmod(aside, 0o644)
        size = os.path.getsize(aside)
        os.replace(aside, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(aside)
        if isinstance(error, SafetensorError):
            raise OSError(str(error)) from None
        raise
    return size


class DiskStore:
    """Every clip of a dataset, decoded once by `config.workers` threads, in a folder that later runs find again.

    entries: what the cache has of each clip, in their order; images and features of other modalities are not among it.
    Filling goes on where an earlier one stopped. Raises UserError when the folder cannot be written, or as soon as it
    is clear that its disk has too little room.
    """

    def __init__(self, clips: Sequence[Clip], config: DataConfig, modalities: Sequence[str], progress: bool) -> None:
        self._config, self._progress = config, progress
        self._folder = config.cache_path("media")
        self._prints = Fingerprints(self._folder / "fingerprints.json")
        self.entries: list[Stored] = [Stored() for _ in clips]
        wanted = [
            (entry, clip, kind)
            for entry, clip in zip(self.entries, clips, strict=True)
            for kind in ("video", "audio")
            if kind in modalities and clip.present(kind)
        ]
        missing: dict[Path, list[tuple[Stored, str, _File]]] = {}
        for (entry, _, kind), file in zip(wanted, self._in_threads("finding media", self._file, wanted), strict=True):
            if isinstance(file, MediaError):
                entry.faults[kind] = file
            elif file.path.exists():
                _attach(entry, kind, file)
            else:
                missing.setdefault(file.path, []).append((entry, kind, file))
        try:
            self._prints.save()
        except OSError as error:
            raise self._unwritable(error) from None
        self._fill(missing)

    def _in_threads(self, title: str, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        pool = ThreadPoolExecutor(max(1, self._config.workers), thread_name_prefix="mover-cache")
        results = []
        try:
            with progress_bar(title, len(items), self._progress) as advance:
                for job in [pool.submit(work, item) for item in items]:
                    results.append(job.result())
                    advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return results

    def _file(self, item: tuple[Stored, Clip, str]) -> _File | MediaError:
        """The file of a clip's part, which need not be there, or why there can be none."""
        _, clip, kind = item
        path = clip.media(kind)
        assert path is not None
        config = self._config
        try:
            content = self._prints.of(path)
        except FileNotFoundError:
            return MediaError(path, "missing", "there is no such file")
        except OSError as error:
            return MediaError(path, "corrupt", f"it cannot be decoded: {error.strerror}")
        settings = (config.image_size, config.cache_frames_per_second) if kind == "video" else (config.sample_rate,)
        key = json.dumps([_VERSION, av.__version__, kind, content, *clip.stretch, *settings])
        name = hashlib.blake2b(key.encode(), digest_size=20).hexdigest()

        def make() -> Tensors:
            return _tensors_of_video(clip, config) if kind == "video" else {"pcm": decode_pcm(clip, config)}

        return _File(self._folder / name[:2] / f"{name}.safetensors", make)

    def _fill(self, missing: dict[Path, list[tuple[Stored, str, _File]]]) -> None:
        """Make the files that are not there yet, each once, and give them to the entries that wait for them."""
        pool = ThreadPoolExecutor(max(1, self._config.workers), thread_name_prefix="mover-cache")
        written = count = 0
        try:
            with progress_bar("decoding clips to disk", len(missing), self._progress) as advance:
                jobs = {pool.submit(waiting[0][2].fill): waiting for waiting in missing.values()}
                for done, job in enumerate(as_completed(jobs), start=1):
                    try:
                        written += job.result()
                        count += 1
                    except MediaError as fault:
                        for entry, kind, _ in jobs[job]:
                            entry.faults[kind] = fault
                    except OSError as error:
                        raise self._unwritable(error) from None
                    else:
                        for entry, kind, file in jobs[job]:
                            _attach(entry, kind, file)
                        if count >= _FIRST and count & (count - 1) == 0:
                            self._check_room(written / count * (len(jobs) - done), len(jobs) - done)
                    advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _check_room(self, needed: float, files: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(
                f"data.cache: {files} more files would take about {needed / 1e9:.1f} GB, and the disk of "
                f"{self._folder} has {free / 1e9:.1f} GB left. Set data.cache_folder to another disk, "
                "data.cache_frames_per_second or data.image_size to less, or data.cache to none."
            )

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"data.cache: {self._folder} cannot be written: {error.strerror or error}. Make room, or set "
            "data.cache_folder to another disk, or data.cache to none. What is there already is used again."
        )


def _attach(entry: Stored, kind: str, file: _File) -> None:
    if kind == "video":
        entry.video = StoredVideo(file)
    else:
        entry._pcm = file


def _tensors_of_video(clip: Clip, config: DataConfig) -> Tensors:
    video: Video = decode_video(clip, config)
    return {"frames": video.pixels, "times": video.times, "duration": np.array([video.duration], np.float64)}
