"""Importing annotations and reading manifests: seconds, and memory above what was in use before.

Rows are synthetic. Importers get annotations as MSR-VTT (20 captions a clip) and AudioCaps (one) publish them, and a
folder with an empty file for each clip, which they list and do not open. The manifest is as importers write them: two
captions, one file for picture and sound, times, an upload. "CPU" is the time the process itself ran: on a machine that
does other things too, the number to compare. Best of three; MiB (resident pages) from one more run.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import keep_freed_pages, peak_mebibytes
from tables import digits
from tables import table as markdown

from mover.data import Clip, read_manifest, write_manifest
from mover.data.importers import IMPORTERS

SIZES, QUICK = (10_000, 200_000), (1_000, 20_000)
RUNS = 3


def run(quick: bool) -> list[dict]:
    """One row for each thing done: importing the smaller number of rows, writing and reading the larger."""
    few, many = QUICK if quick else SIZES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        media = _media(folder / "media", few)
        msrvtt, audiocaps = write_msrvtt(folder, few), _audiocaps(folder, few)
        clips = [_clip(folder, number) for number in range(many)]
        manifest = folder / "manifest.jsonl"
        rows = [
            _measured("import msrvtt", few, lambda: IMPORTERS["msrvtt"](msrvtt, media, protocol="full")),
            _measured("import audiocaps", few, lambda: IMPORTERS["audiocaps"](audiocaps, media)),
            _measured("write a manifest", many, lambda: write_manifest(manifest, clips)),
        ]
        size = manifest.stat().st_size
        clips.clear()
        rows.append(_measured("read a manifest", many, lambda: read_manifest(manifest)) | {"bytes a row": size / many})
    return rows


def table(rows: list[dict]) -> str:
    header = ["", "rows", "seconds", "CPU seconds", "MiB"]
    lines = [
        [row["what"], f"{row['rows']:,}", digits(row["seconds"]), digits(row["CPU seconds"]), digits(row["MiB"])]
        for row in rows
    ]
    return markdown(header, lines) + f"\n\nA row of the manifest has {rows[-1]['bytes a row']:.0f} bytes."


def _measured(what: str, rows: int, work: Callable[[], Any]) -> dict:
    keep_freed_pages(True)
    best = [float("inf"), float("inf")]
    for _ in range(RUNS):
        began = time.perf_counter(), time.process_time()
        work()
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        best = [min(pair) for pair in zip(best, took, strict=True)]
    return {"what": what, "rows": rows, "seconds": best[0], "CPU seconds": best[1], "MiB": peak_mebibytes(work, False)}


def _media(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"video{number}.mp4").touch()
    return folder


def write_msrvtt(folder: Path, count: int) -> Path:
    videos = [
        {"video_id": f"video{number}", "category": 1, "url": "https://www.youtube.com/watch?v=abcdefghijk",
         "start time": 1.0, "end time": 11.0, "split": "train", "id": number}
        for number in range(count)
    ]  # fmt: skip
    sentences = [
        {"caption": f"a person does thing number {n} in a room", "video_id": f"video{n % count}", "sen_id": n}
        for n in range(20 * count)
    ]
    path = folder / "MSRVTT_data.json"
    path.write_text(json.dumps({"info": {}, "videos": videos, "sentences": sentences}))
    return path


def _audiocaps(folder: Path, count: int) -> Path:
    path = folder / "train.csv"
    rows = (f'{number},video{number},30,"A dog barks, and a car passes {number} times"\n' for number in range(count))
    path.write_text("audiocap_id,youtube_id,start_time,caption\n" + "".join(rows))
    return path


def _clip(folder: Path, number: int) -> Clip:
    upload = f"upload{number:06d}"
    file = folder / "media" / f"{upload}_000010_000020.mp4"
    captions = (f"a man is doing something number {number} in a room", "another caption of the same clip")
    extra = {"youtube_id": upload, "start_time": 10.0}
    return Clip(f"{upload}_000010_000020", captions, file, file, {}, 10.0, 10.0, source="vatex", extra=extra)
