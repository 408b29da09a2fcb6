"""When a track begins and ends, by what headers can be relied on for, and whether a file was cut short."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import av

from mover.data.media_error import MediaError

_UNKNOWN_SIZE = 0x7FFF0000
"""A wav file with more bytes than this by its header was written without knowing how many would come."""


def file_start(container: Any) -> float:
    """The timestamp, in seconds, at which the file begins."""
    return 0.0 if container.start_time is None else container.start_time / av.time_base


def slack(seconds: float) -> float:
    """How much sooner than announced a track of this length may end before it counts as cut short."""
    return max(0.5, 0.1 * seconds)


def _is_matroska(container: Any) -> bool:
    return "matroska" in container.format.name


def _stream_end(path: Path, container: Any, stream: Any) -> float:
    """When the stream ends by its header, in seconds from the start of the file."""
    first = 0 if stream.start_time is None else stream.start_time
    end = float((first + stream.duration) * stream.time_base) - file_start(container)
    return end * _announced_share(path) if container.format.name in ("wav", "avi") else end


def _announced_share(path: Path) -> float:
    """How many times as long as it is a wav or avi file should be by its first eight bytes; 1 where they cannot say."""
    with open(path, "rb") as file:
        head = file.read(8)
        there = file.seek(0, os.SEEK_END)
    announced = int.from_bytes(head[4:], "little") + 8
    return announced / there if head[:4] == b"RIFF" and there < announced < _UNKNOWN_SIZE else 1.0


def video_end(path: Path, container: Any, stream: Any, start: float | None, duration: float | None) -> float:
    """When the stream ends, seconds from the start of the file; by reading all packets where no header says so."""
    if not _is_matroska(container) and stream.duration is not None:
        return _stream_end(path, container, stream)
    if _is_matroska(container) and start is not None and duration is not None:
        end = header_end(path, container, stream)
        if (
            end is not None and start + duration <= end
        ):  # a part of what may be hours need not wait for a look at it all
            return end
    return _last_packet(path, container, stream)


def header_end(path: Path, container: Any, stream: Any) -> float | None:
    """When the stream ends by what any header says, in seconds from the start of the file; None where none does."""
    whole = None if container.duration is None else container.duration / av.time_base
    if not _is_matroska(container):
        return whole if stream.duration is None else _stream_end(path, container, stream)
    clock = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if clock is None or whole is None:
        return whole
    return min(whole, int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3]))


def _last_packet(path: Path, container: Any, stream: Any) -> float:
    """When the stream ends by its packets. Raises MediaError for a Matroska file that ends before its header says."""
    begin = file_start(container)
    end = last = 0.0
    for packet in container.demux():
        if packet.pts is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base) - begin)
            end = last if packet.stream is stream and last > end else end
    whole = 0.0 if container.duration is None or not _is_matroska(container) else container.duration / av.time_base
    if last < whole - slack(whole):
        raise MediaError(path, "corrupt", f"the file ends at {last:.2f} s of {whole:.2f} s")
    container.seek(0)
    return end


def check_whole(path: Path, container: Any, stream: Any, reached: float, due: float) -> None:
    """Raise MediaError for a Matroska file that was cut short, if its audio ended at `reached` seconds where it should
    have reached `due` (infinite: the end of the file)."""
    if _is_matroska(container) and container.duration is not None:
        due = min(due, container.duration / av.time_base)
        if reached < due - slack(due):  # or the sound is shorter than the picture
            container.seek(0)
            _last_packet(path, container, stream)


def audio_end(path: Path, container: Any, stream: Any) -> float | None:
    """When the stream ends, where its header can be relied on: others say nothing, or what they guess from its size."""
    kind = container.format.name
    counted = kind == "mp3" and bool(stream.start_time)  # the header that counts the frames names a delay, too
    if stream.duration is None or not (counted or kind in ("flac", "wav") or "mov" in kind.split(",")):
        return None
    return _stream_end(path, container, stream)
