"""MSR-VTT and every data set published in its form.

One JSON file holds `videos`: [{video_id, category, url, "start time", "end time", split}, …] and
`sentences`: [{caption, video_id, sen_id}, …]. The retrieval splits are lists of names in separate files; the test list
of 1k-A (`MSRVTT_JSFUSION_test.csv`: key, vid_key, video_id, sentence) also fixes one caption per clip.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mover.data.clip import Clip
from mover.data.importers.fields import clip_name, mapping, text, twice
from mover.data.importers.importer import AUDIO, Importer, Option
from mover.data.importers.media_files import MediaFiles
from mover.data.importers.splits import assign, find_list
from mover.data.importers.table import Row, read_json
from mover.errors import UserError

ANNOTATIONS = "MSRVTT_data.json"
PARTS = ("train_val_videodatainfo.json", "test_videodatainfo.json")
PROTOCOLS = {
    "1k-A": {"train": "MSRVTT_train.9k.csv", "test": "MSRVTT_JSFUSION_test.csv"},
    "7k": {"train": "MSRVTT_train.7k.csv", "test": "MSRVTT_JSFUSION_test.csv"},
    "1k-B": {"train": "train_list_miech.txt", "test": "test_list_miech.txt"},
    "full": {},
}
_SPLITS = {"validate": "val", "validation": "val"}


def load(
    annotations: Path, media: Path, *, protocol: str = "1k-A", audio: Path | None = None, source: str = "msrvtt"
) -> list[Clip]:
    """Clips in the order of `videos`; all captions are kept, in the order of `sentences`.

    annotations: the JSON file, or a folder that holds `MSRVTT_data.json` or the two files it was first published as.
        The lists of the protocol lie beside it.
    media: folder with `<video_id>.<extension>`. The files are taken as already cut: start and end times refer to the
        original upload and are kept under `extra` only.
    protocol: which clips are trained and tested on. "full": as the JSON file says; otherwise as the lists say, clips
        in no list are left out. "1k-A" and "7k" test on the one caption that the list gives; "1k-B" on the first one.
    Raises UserError naming the entry for anything malformed: an unknown video, an id given twice, a clip without a
    caption, an empty caption.
    """
    folder, paths = _paths(annotations)
    clips: dict[str, Clip] = {}
    places: dict[str, str] = {}
    for path in paths:
        document = read_json(path)
        lists = [document.get(key) for key in ("videos", "sentences")] if isinstance(document, dict) else [None]
        if not all(isinstance(entries, list) for entries in lists):
            raise UserError(f"{path}: expected an object with the lists 'videos' and 'sentences'.")
        _videos(document["videos"], path, source, clips, places)
        _sentences(document["sentences"], path, clips)
    for clip in clips.values():
        if not clip.captions:
            raise UserError(f"{places[clip.id]}: video '{clip.id}' has no sentence. Add one or delete the video.")
    chosen = list(clips.values()) if protocol == "full" else _apply(clips, protocol, folder, paths[0])
    files = MediaFiles(media, audio, ("video", "audio"))
    chosen = [files.attach(clip, clip.id) for clip in chosen]
    files.check_found()
    return chosen


def _paths(annotations: Path) -> tuple[Path, list[Path]]:
    if not annotations.is_dir():
        return annotations.parent, [annotations]
    if not (annotations / ANNOTATIONS).exists() and (annotations / PARTS[0]).exists():
        return annotations, [annotations / part for part in PARTS if (annotations / part).exists()]
    return annotations, [annotations / ANNOTATIONS]


def _videos(entries: list[Any], path: Path, source: str, clips: dict[str, Clip], places: dict[str, str]) -> None:
    for position, value in enumerate(entries):
        where = f"{path}, videos[{position}]"
        entry = mapping(value, where)
        name = clip_name(entry.get("video_id"), where, "video_id")
        if name in clips:
            raise twice(where, name, places[name])
        split = text(entry.get("split"), where, "split")
        category = entry.get("category")
        extra = {k: v for k, v in entry.items() if k not in ("video_id", "split", "category") and v not in (None, "")}
        upload = re.search(r"(?:[?&]v=|youtu\.be/)([\w-]{11})", str(entry.get("url")))
        clips[name] = Clip(
            id=name,
            split=_SPLITS.get(split, split),
            label=None if category is None else str(category),
            duration=_length(entry.get("start time"), entry.get("end time")),
            source=source,
            extra=extra if upload is None else {**extra, "youtube_id": upload[1]},
        )
        places[name] = where
    if not entries:
        raise UserError(f"{path}: the list 'videos' is empty. Fetch the file again.")


def _length(start: Any, end: Any) -> float | None:
    """Seconds from one to the other, where both are times."""
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (start, end)):
        return None
    return float(end - start) if 0 <= start < end < 1e9 else None


def _sentences(entries: list[Any], path: Path, clips: dict[str, Clip]) -> None:
    found: dict[str, tuple[list[str], list[dict[str, Any]]]] = {}
    for position, value in enumerate(entries):
        where = f"{path}, sentences[{position}]"
        entry = mapping(value, where)
        name = text(entry.get("video_id"), where, "video_id")
        if name not in clips:
            raise UserError(f"{where}: video_id '{name}' is not in 'videos'. Add the video or delete the sentence.")
        captions, rest = found.setdefault(name, ([], []))
        captions.append(text(entry.get("caption"), where, "caption"))
        rest.append({key: value for key, value in entry.items() if key not in ("video_id", "caption")})
    for name, (captions, rest) in found.items():
        extra = {**clips[name].extra, "sentences": rest} if any(rest) else clips[name].extra
        clips[name] = replace(clips[name], captions=clips[name].captions + tuple(captions), extra=extra)


def _apply(clips: dict[str, Clip], protocol: str, folder: Path, annotations: Path) -> list[Clip]:
    remedy = f"The protocol {protocol} needs it beside the annotations; --protocol full takes the splits they name."
    lists = {split: find_list(folder, [name], remedy) for split, name in PROTOCOLS[protocol].items()}
    chosen, rows = assign(clips, lists, annotations)
    return [_tested(clip, protocol, rows[clip.id]) if clip.split == "test" else clip for clip in chosen]


def _tested(clip: Clip, protocol: str, row: Row) -> Clip:
    """The clip with the one caption it is tested on."""
    captions = clip.captions[:1]
    if protocol != "1k-B":
        captions = (text(row.values.get("sentence"), row.where, "sentence"),)
    extra = {key: value for key, value in clip.extra.items() if key != "sentences"}
    return replace(clip, captions=captions, extra=extra)


IMPORTER = Importer(
    name="msrvtt",
    title="MSR-VTT, and sets published in its form",
    guide="""\
--annotations is a folder, or the JSON file in it:
  MSRVTT_data.json           videos and sentences, or
  train_val_videodatainfo.json, test_videodatainfo.json
and, beside it, the lists of the protocol:
  1k-A   MSRVTT_train.9k.csv, MSRVTT_JSFUSION_test.csv     9,000 / 1,000 clips
  7k     MSRVTT_train.7k.csv, MSRVTT_JSFUSION_test.csv     7,010 / 1,000 clips
  1k-B   train_list_miech.txt, test_list_miech.txt         6,656 / 1,000 clips
  full   none: the splits of the JSON file                 6,513 / 497 / 2,990 clips
1k-A and 7k test on one caption per clip, given by the list; 1k-B on the first caption of each clip.
Media: <video_id>.mp4, already cut.

  mover import msrvtt --annotations msrvtt --media msrvtt/videos --out data/msrvtt/manifest.jsonl
  mover import msrvtt --annotations msrvtt --media msrvtt/videos --out data/full/manifest.jsonl --protocol full""",
    load=load,
    options=(Option("protocol", "which clips are trained and tested on", tuple(PROTOCOLS), "1k-A"), AUDIO),
)
