"""Decoding: frames by presentation time, audio as mono samples, images, and errors that name the file.

Containers are opened, read by one decoder thread and closed inside each call: nothing is shared between threads or
processes, and calls may run side by side.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter

from mover.data.limits import LIMITS, Limits, size_of_file
from mover.data.media_error import MediaError
from mover.data.track_end import audio_end, check_whole, file_start, header_end, slack, video_end

MIN_AUDIO_SECONDS = 0.2
_SLIM = 8
"""How many times as long as wide a picture may be, and still be scaled before it is cut."""
_PCM_SCALE = np.float32(1 / 32768)
_RATES = (1_000, 1_000_000)
"""Samples per second that sound may have, from and to: to resample others takes memory without end."""
_FORMATS = (
    "3g2,3gp,aac,ac3,aiff,amr,ape,apng,asf,au,av1,avi,bmp_pipe,caf,dv,eac3,flac,flv,gif,gif_pipe,h264,hevc,ivf,j2k_pipe,"
    "jpeg_pipe,jpegls_pipe,m4a,m4v,matroska,mjpeg,mov,mp3,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,pam_pipe,pgm_pipe,"
    "png_pipe,ppm_pipe,rm,tiff_pipe,tta,vc1,voc,w64,wav,webm,webp_pipe,wtv,wv,yuv4mpegpipe"
)
"""Formats that hold what they play. Playlists are not among them: they have the decoder open other files, and addresses
of the network."""


@dataclass(frozen=True)
class Video:
    """Frames of a clip.

    pixels: uint8 (F, 3, S, S), red-green-blue. times: float64 (F,), seconds from the start of the clip, not decreasing.
    duration: seconds.
    """

    pixels: np.ndarray
    times: np.ndarray
    duration: float

    def at(self, times: np.ndarray) -> np.ndarray:
        """uint8 (T, 3, S, S): the frames on screen at these times (T,): the last one that began, else the first."""
        return self.pixels[shown_at(self.times, times)]


def shown_at(frame_times: np.ndarray, times: np.ndarray) -> np.ndarray:
    """int64 (T,): index of the frame on screen at each time, given when each frame begins (F,), F >= 1."""
    return np.maximum(np.searchsorted(frame_times, times, side="right") - 1, 0)


def read_video(
    path: Path,
    size: int,
    choose: Callable[[float], np.ndarray] | None = None,
    *,
    start: float | None = None,
    duration: float | None = None,
    limits: Limits = LIMITS,
) -> Video:
    """Decode frames of a file, scaled so that the shorter side is `size` pixels and cut to the central square.

    choose: takes the duration of the clip in seconds and gives the times wanted, (T,) in any order; the result then has
        T frames in that order, those on screen at the times wanted. Decoding ends after the last of them. None: all.
    start, duration: with `start`, the clip is that part of the file, in seconds of the file; else the whole file.
    Raises MediaError: missing, corrupt (cannot be decoded, ends long before it should), too_short or too_large.
    """
    most = limits.max_clip_bytes // (3 * size * size)
    pixels, times, wanted, total = _decode_video(path, choose, _Scaler(size), start, duration, limits, most)
    images, starts = np.stack(pixels), np.array(times)
    if wanted is None:
        return Video(images, starts, total)
    return Video(images[shown_at(starts, wanted)], wanted, total)


def scan_video(
    path: Path, *, start: float | None = None, duration: float | None = None, limits: Limits = LIMITS
) -> dict[str, float]:
    """Decode every frame and keep none: how many frames, seconds, width and height in pixels.

    start, duration, raises: as in `read_video`.
    """
    sizes, _, _, total = _decode_video(path, None, lambda frame: (frame.width, frame.height), start, duration, limits)
    width, height = sizes[0]
    return {"frames": len(sizes), "seconds": total, "width": width, "height": height}


def glance(
    path: Path, kind: str, *, start: float | None = None, duration: float | None = None, limits: Limits = LIMITS
) -> dict[str, float]:
    """What the headers of a file say of its "video" or "audio": seconds, where they know. Nothing is decoded.

    start, duration: as in `read_video`. Raises MediaError: missing, no_audio_track, corrupt (the file cannot be opened
    as media) or too_short (by its headers).
    """
    with _opened(path, limits) as container:
        stream = _track(path, container, kind, limits)
        end = header_end(path, container, stream)
        total = None if end is None else _window(path, end, start, duration)
    return {} if total is None else {"seconds": total}


def _decode_video(
    path: Path,
    choose: Callable[[float], np.ndarray] | None,
    scale: Callable[[av.VideoFrame], Any],
    start: float | None,
    duration: float | None,
    limits: Limits,
    most: int | None = None,
) -> tuple[list[Any], list[float], np.ndarray | None, float]:
    """The frames of `read_video` as `scale` gives them, at most so many, when they begin, the times wanted, the clip's
    duration."""
    with _opened(path, limits) as container:
        stream = _track(path, container, "video", limits)
        total = _window(path, video_end(path, container, stream, start, duration), start, duration)
        wanted = None if choose is None else np.asarray(choose(total), dtype=np.float64)
        frames = _within(limits, path, _frames_from(container, stream, start, []))
        origin = file_start(container) + (start or 0.0)
        found, times, reached = _collect(frames, origin, total, wanted, scale, most)
        unknown = stream.codec_context.width == 0
    if most is not None and len(found) > most:
        limits.check_bytes(path, np.inf, "frames")
    if not found:
        beyond = ", or they are far larger than data.max_pixels" if unknown else ""
        raise MediaError(path, "corrupt", f"not one video frame could be decoded{beyond}")
    if reached < total - slack(total):
        raise MediaError(path, "corrupt", f"the video ends at {reached:.2f} s of {total:.2f} s")
    return found, times, wanted, total


def read_pcm(
    path: Path, rate: int, *, start: float | None = None, duration: float | None = None, limits: Limits = LIMITS
) -> np.ndarray:
    """int16 (n,): the first audio track as mono at `rate` samples per second, channels averaged.

    A track that begins after the clip does is silent until then. start, duration: as in `read_video`.
    Raises MediaError: missing, no_audio_track, corrupt, too_short (less than
    `MIN_AUDIO_SECONDS`) or too_large.
    """
    with _opened(path, limits) as container:
        stream = _track(path, container, "audio", limits)
        end = audio_end(path, container, stream)
        limit = duration if start is not None else None
        if end is not None:
            limit = _window(path, end, start, duration)
        most = None if limit is None else round(limit * rate)
        samples, damaged = _resample(path, container, stream, start, rate, most, limits)
        reached = len(samples) / rate
        due = np.inf if most is None else most / rate
        check_whole(path, container, stream, (start or 0.0) + reached, (start or 0.0) + due)
    if (damaged or end is not None) and reached < due - slack(due):
        raise MediaError(path, "corrupt", f"the audio ends too soon, at {reached:.2f} s")
    if len(samples) < MIN_AUDIO_SECONDS * rate:
        raise MediaError(path, "too_short", f"the audio has {reached:.3f} s, at least {MIN_AUDIO_SECONDS} s are needed")
    return samples


def read_audio(path: Path, rate: int, *, start: float | None = None, duration: float | None = None) -> np.ndarray:
    """float32 (n,) in [-1, 1): `read_pcm` divided by 2^15."""
    return pcm_to_float(read_pcm(path, rate, start=start, duration=duration))


def read_image(path: Path, size: int, limits: Limits = LIMITS) -> np.ndarray:
    """uint8 (3, size, size), red-green-blue: an image scaled so that the shorter side is `size` pixels, and cut to the
    central square; the first picture of an animation.

    Transparency is left aside: the colours stored count. Images that a camera stored turned come out upright, by their
    EXIF orientation; of a mirrored one (2, 4, 5, 7), which cameras do not write, only the turn is known.
    Raises MediaError: missing, too_large, or corrupt (no image, cut short, or of a kind the decoder lacks: animated
    WebP).
    """
    with _decoding(path):
        limits.check_image_file(path, size_of_file(path))
        content = Path(path).read_bytes()
    try:
        # By its name, 'photo%d.png' would be read as a series of files.
        with _decoding(path), av.open(io.BytesIO(content), options=_options(limits)) as container:
            stream = _track(path, container, "video", limits)
            for frame in _within(limits, path, _frames(container, stream, [])):
                return _Scaler(size)(frame)
    except MediaError:
        limits.check_picture(path, *_size_of_picture(content))  # which the decoder refuses without saying so
        raise
    limits.check_picture(path, *_size_of_picture(content))
    raise MediaError(path, "corrupt", "it holds no image that can be decoded")


def _size_of_picture(content: bytes) -> tuple[int, int]:
    """Width and height by the header of an image, (0, 0) where it cannot be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as picture:
            return picture.size
    except Image.DecompressionBombError:  # larger than any size that would be let through
        return sys.maxsize, sys.maxsize
    except Exception:  # whatever its parsers raise on a damaged file
        return 0, 0


def pcm_to_float(pcm: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1) from int16, any shape."""
    return pcm.astype(np.float32) * _PCM_SCALE


class _Scaler:
    """Frames to uint8 (3, size, size), turned as their display matrix says."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        turns = round(frame.rotation / 90) % 4  # counter-clockwise
        if max(frame.width, frame.height) > _SLIM * min(frame.width, frame.height):
            frame = _central_square(frame)
        ratio = self.size / min(frame.width, frame.height)
        width, height = (max(self.size, round(side * ratio)) for side in (frame.width, frame.height))
        scaled = self._reformatter.reformat(frame, width, height, "rgb24", interpolation="BILINEAR", threads=1)
        image = scaled.to_ndarray()  # (height, width, 3)
        top, left = (height - self.size) // 2, (width - self.size) // 2
        square = np.rot90(image[top : top + self.size, left : left + self.size], turns)
        return np.ascontiguousarray(square.transpose(2, 0, 1))


def _central_square(frame: av.VideoFrame) -> av.VideoFrame:
    """The middle of a picture so slim that scaling all of it would take far more memory than the part that is kept."""
    image = frame.reformat(format="rgb24").to_ndarray()  # (height, width, 3)
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side], dtype=np.uint8)
    return av.VideoFrame.from_ndarray(square, "rgb24")


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[Any]:
    """An open container; whatever the decoder raises inside becomes a MediaError about this file."""
    with _decoding(path):
        size_of_file(path)
        # The scheme keeps a name with a colon or a leading dash from being read as something other than a file.
        options = _options(limits) | {"protocol_whitelist": "file"}
        with av.open("file:" + os.path.abspath(path), options=options) as container:
            yield container


def _options(limits: Limits) -> dict[str, str]:
    """Which formats may be opened, and how large a picture may be, for the decoders that find the format out, too. They
    count rows rounded up to 64 pixels, so they have twice the limit; `_within` has it exactly."""
    return {"format_whitelist": _FORMATS, "max_pixels": str(2 * limits.max_pixels)}


def _within(limits: Limits, path: Path, frames: Iterator[Any]) -> Iterator[Any]:
    """The frames, none of which is larger than the limit."""
    for frame in frames:
        limits.check_picture(path, frame.width, frame.height)
        yield frame


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Whatever the decoder or the file system raises inside becomes a MediaError about this file."""
    try:
        yield
    except FileNotFoundError:  # that of PyAV is one, too
        raise MediaError(path, "missing", "there is no such file") from None
    except (av.error.FFmpegError, OSError, ValueError, OverflowError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise MediaError(path, "corrupt", f"it cannot be decoded: {detail}") from None


def _track(path: Path, container: Any, kind: str, limits: Limits) -> Any:
    """The first video or audio stream, cover pictures aside, set to decode in the calling thread."""
    tracks = [stream for stream in container.streams if stream.type in ("video", "audio")]
    picture = av.stream.Disposition.attached_pic
    wanted = [stream for stream in tracks if stream.type == kind and not stream.disposition & picture]
    if wanted and wanted[0].codec_context is not None:
        codec = wanted[0].codec_context
        codec.thread_count = 1
        if kind == "video":
            limits.check_picture(path, codec.width, codec.height)
            codec.options = {"max_pixels": str(2 * limits.max_pixels)}
        elif not _RATES[0] <= codec.sample_rate <= _RATES[1]:
            raise MediaError(path, "corrupt", f"its audio has {codec.sample_rate} samples a second")
        return wanted[0]
    if wanted or not tracks or any(stream.codec_context is None for stream in tracks):
        raise MediaError(path, "corrupt", f"its {kind} track has no known format")
    raise MediaError(path, "corrupt" if kind == "video" else "no_audio_track", f"there is no {kind} track in this file")


def _window(path: Path, end: float, start: float | None, duration: float | None) -> float:
    """Duration of the clip in seconds, of a track that ends at `end`."""
    if start is None:
        return max(end, 0.0)
    if start >= end:
        raise MediaError(path, "too_short", f"it ends at {end:.2f} s, and the clip starts at {start:.2f} s")
    return end - start if duration is None else min(duration, end - start)


def _frames_from(container: Any, stream: Any, start: float | None, damage: list[Exception]) -> Iterator[Any]:
    """Decoded frames, the first of which is on screen, or heard, at `start` or before it where the file has such.

    Some files have no index, or one that leads past the moment wanted: then it is looked for further and further back.
    """
    frames = _frames(container, stream, damage)
    if start:
        begin = file_start(container)
        back = 0.0
        while True:
            target = max(0.0, start - back)
            container.seek(int((begin + target) * av.time_base), backward=True)
            frames = _frames(container, stream, damage)
            first = next(frames, None)
            if target == 0 or (first is not None and first.time is not None and first.time <= begin + start):
                break
            back = 2 * back or 2.0
        if first is not None:
            yield first
    yield from frames


def _frames(container: Any, stream: Any, damage: list[Exception]) -> Iterator[Any]:
    """Decoded frames in presentation order. Packets that cannot be decoded are passed over and noted in `damage`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            damage.append(error)
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            damage.append(error)
            continue
        yield from frames


def _collect(
    frames: Iterator[Any],
    origin: float,
    total: float,
    wanted: np.ndarray | None,
    scale: Callable[[Any], Any],
    most: int | None,
) -> tuple[list[Any], list[float], float]:
    """Frames of the clip as `scale` gives them and the times they begin; with `wanted`, only those on screen then.

    origin: timestamp of the clip's beginning, in seconds. total: duration of the clip. most: with more frames than
    these, decoding stops.
    The third value is where the frames ended, infinite when decoding stopped because all that was needed was there.
    """
    pixels: list[Any] = []
    times: list[float] = []
    queue = None if wanted is None else np.sort(wanted)
    position = 0
    before: tuple[float, Any] | None = None  # the last frame that began, not yet kept
    last = reached = -np.inf
    for frame in frames:
        last = time = max(last, last if frame.time is None else frame.time - origin)
        if before is not None and _needed(queue, position, before[0], time):
            times.append(before[0])
            pixels.append(scale(before[1]))
            position = 0 if queue is None else int(np.searchsorted(queue, time, side="left"))
        before = (time, frame)
        reached = time + float(frame.duration * frame.time_base if frame.duration else 0)
        if time >= total or (queue is not None and position >= len(queue)) or (most is not None and len(pixels) > most):
            reached = np.inf
            break
    if before is not None and (before[0] < total or not pixels) and (queue is None or position < len(queue)):
        times.append(before[0])
        pixels.append(scale(before[1]))
    return pixels, times, reached


def _needed(queue: np.ndarray | None, position: int, begins: float, ends: float) -> bool:
    """Whether a frame on screen from `begins` to `ends` is wanted; the first frame also serves all earlier times."""
    if queue is None:
        return ends > 0
    return position < len(queue) and queue[position] < ends


def _resample(
    path: Path, container: Any, stream: Any, start: float | None, rate: int, most: int | None, limits: Limits
) -> tuple[np.ndarray, bool]:
    """int16 samples from the clip's beginning, at most `most`, and whether any packet could not be decoded."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    origin = file_start(container) + (start or 0.0)
    damage: list[Exception] = []
    pieces: list[np.ndarray] = []
    skip: int | None = None
    count = 0
    for frame in _frames_from(container, stream, start, damage):
        if skip is None:
            skip = round((origin - frame.time) * rate) if frame.time is not None else 0
            longest = round((container.duration or 0) / av.time_base * rate) if most is None else most
            silent = min(max(-skip, 0), longest)
            limits.check_bytes(path, 2 * silent, "samples")
            pieces.append(np.zeros(silent, np.int16))
            count, skip = len(pieces[0]), max(skip, 0)
        frame.pts = None
        try:
            fresh = [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        except ValueError as error:
            raise MediaError(path, "corrupt", f"the audio changes its format on the way: {error}") from None
        pieces += fresh
        count += sum(map(len, fresh))
        limits.check_bytes(path, 2 * count, "samples")
        if most is not None and count >= skip + most:
            break
    else:
        if pieces:
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    samples = samples[skip or 0 :]
    return np.ascontiguousarray(samples if most is None else samples[:most]), bool(damage)
