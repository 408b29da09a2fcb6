"""The JSON lists that VAST, GRAM and their kin train and test on.

Each entry names its clip by the first of clip_id, video_id, image_id, image, id that it has, and describes it by the
first of desc, caption, vast_cap: a sentence or a list of sentences. Anything else (subtitle, vision_cap, url, …) is
information.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mover.data.clip import IMAGE_EXTENSIONS, Clip
from mover.data.importers.fields import clip_name, mapping, shown, text, texts, twice
from mover.data.importers.importer import AUDIO, Importer, Option
from mover.data.importers.media_files import MediaFiles
from mover.data.importers.table import read_json
from mover.data.media_index import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS
from mover.errors import UserError

IDS = ("clip_id", "video_id", "image_id", "image", "id")
CAPTIONS = ("desc", "caption", "vast_cap")
ENDINGS = {"train": ("_train", "_trainval"), "val": ("_val",), "test": ("_test",)}


@dataclass
class _Entry:
    where: str
    split: str
    several: bool
    captions: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


def load(
    annotations: Path, media: Path, *, split: str | None = None, audio: Path | None = None, source: str = "vast-json"
) -> list[Clip]:
    """Clips in the order of the entries.

    annotations: a JSON file, or a folder with one file for each split, called …_train.json (or …_trainval.json),
        …_val.json, …_test.json.
    media: folder with videos, sounds or images named after the ids; an id may end in the file's extension.
    split: of the clips of a single file; by default what its name ends in, else "train".
    Entries of one id with one sentence each are one clip with several captions; an id with a list of sentences may
    occur only once. Raises UserError naming the entry for anything malformed.
    """
    entries: dict[str, _Entry] = {}
    for part, path in _paths(annotations, split):
        document = read_json(path)
        if not isinstance(document, list) or not document:
            raise UserError(f"{path}: expected a list of objects, got {shown(document)}.")
        for position, value in enumerate(document):
            _add(entries, mapping(value, f"{path}, [{position}]"), f"{path}, [{position}]", part)
    files = MediaFiles(media, audio, ("video", "audio"))
    clips = []
    for name, entry in entries.items():
        clip = Clip(name, tuple(entry.captions), split=entry.split, source=source, extra=entry.extra)
        clip = files.attach(clip, name)
        if clip.others and not clip.video and not clip.audio:  # a picture lacks neither video nor sound
            clip = replace(clip, status={})
        clips.append(clip)
    files.check_found()
    return clips


def _paths(annotations: Path, split: str | None) -> list[tuple[str, Path]]:
    if not annotations.is_dir():
        return [(split or _split_of(annotations) or "train", annotations)]
    found: dict[str, list[Path]] = {part: [] for part in ENDINGS}
    for path in sorted(annotations.glob("*.json")):
        part = _split_of(path)
        if part is not None:
            found[part].append(path)
    if split is not None:
        raise UserError(f"{annotations}: the files of a folder name their splits. Leave --split out, or name one file.")
    for paths in found.values():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise UserError(f"{annotations}: several files for one split: {names}. Name one file and its --split.")
    if not any(found.values()):
        raise UserError(f"{annotations}: no file ends in _train.json, _val.json or _test.json. Name a file.")
    return [(part, paths[0]) for part, paths in found.items() if paths]


def _split_of(path: Path) -> str | None:
    return next((part for part, endings in ENDINGS.items() if path.stem.endswith(endings)), None)


def _add(entries: dict[str, _Entry], row: dict[str, Any], where: str, split: str) -> None:
    key = next((key for key in IDS if key in row), None)
    if key is None:
        raise UserError(f"{where}: no id: expected one of {', '.join(IDS)}. Add one or delete the entry.")
    value = row[key]
    name = clip_name(str(value) if type(value) is int else value, where, key)
    stem, extension = os.path.splitext(name)
    if stem and extension.lower() in VIDEO_EXTENSIONS + AUDIO_EXTENSIONS + IMAGE_EXTENSIONS:
        name = stem
    said = next((key for key in CAPTIONS if key in row), None)
    if said is None:
        raise UserError(f"{where}: no caption: expected one of {', '.join(CAPTIONS)}. Add one or delete the entry.")
    several = isinstance(row[said], list)
    captions = texts(row[said], where, said) if several else [text(row[said], where, said)]
    known = entries.get(name)
    if known is not None and (known.several or several or known.split != split):
        raise twice(where, name, known.where)
    entry = entries.setdefault(name, _Entry(where, split, several))
    entry.captions += captions
    entry.extra.update({k: v for k, v in row.items() if k not in (key, said)})


IMPORTER = Importer(
    name="vast-json",
    title="JSON lists as VAST and GRAM use them: ids, captions, subtitles",
    guide="""\
--annotations is a JSON file, or a folder with one file per split: …_train.json, …_val.json, …_test.json.
A file is a list of objects with
  an id        the first there is of clip_id, video_id, image_id, image, id
  captions     the first there is of desc, caption, vast_cap: a string or a list of strings
  anything     subtitle, vision_cap, audio_cap, url, …: kept under 'extra'
Media: <id>.<extension>; an id may hold folders and may end in the extension. Images become the modality 'image'.

  mover import vast-json --annotations descs_ret_train.json --media videos --audio audio --out data/x/manifest.jsonl""",
    load=load,
    options=(Option("split", "of a single file [what its name ends in, else train]", metavar="NAME"), AUDIO),
)
