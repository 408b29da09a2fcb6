"""VATEX: ten English and ten Chinese captions of each ten-second clip.

`vatex_training_v1.0.json`, `vatex_validation_v1.0.json`, `vatex_public_test_*.json`: lists of
{videoID: "<upload>_<start>_<end>", enCap: […], chCap: […]}, times in seconds of six digits. Retrieval uses the split of
HGR: lists of names, the training clips as published and the validation clips parted in two.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mover.data.clip import Clip
from mover.data.importers.fields import clip_name, mapping, texts, twice
from mover.data.importers.importer import AUDIO, Importer, Option, untrimmed
from mover.data.importers.media_files import MediaFiles
from mover.data.importers.splits import assign, find_list
from mover.data.importers.table import read_json
from mover.data.importers.uploads import attach
from mover.errors import UserError

FILES = {"train": "vatex_training*.json", "val": "vatex_validation*.json", "test": "vatex_public_test*.json"}
LISTS = {"train": ("trn", "train"), "val": ("val",), "test": ("tst", "test")}
LANGUAGES = {"en": ("enCap",), "zh": ("chCap",), "both": ("enCap", "chCap")}


def load(
    annotations: Path,
    media: Path,
    *,
    protocol: str = "hgr",
    language: str = "en",
    untrimmed: bool = False,
    audio: Path | None = None,
    source: str = "vatex",
) -> list[Clip]:
    """Clips in the order of the files train, validation, public test.

    annotations: folder with the published files, and with the lists of names for the protocol "hgr".
    media: folder with `<videoID>.<extension>`; with `untrimmed`, of whole uploads named `<upload>` or `<videoID>`.
    protocol: "hgr": splits as the lists say, clips in no list are left out; "official": as the files are called.
    language: captions in English, Chinese or both (English first; `extra.languages` says which is which).
    Raises UserError naming the entry for anything malformed.
    """
    if not annotations.is_dir():
        raise UserError(f"{annotations}: expected the folder that holds {', '.join(FILES.values())}.")
    clips: dict[str, Clip] = {}
    entries: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    parts: dict[str, tuple[str, float, float]] = {}
    for split, pattern in FILES.items():
        for path in sorted(annotations.glob(pattern)):
            document = read_json(path)
            if not isinstance(document, list):
                raise UserError(f"{path}: expected a list of objects with 'videoID', got {type(document).__name__}.")
            for position, value in enumerate(document):
                where = f"{path}, [{position}]"
                entry = mapping(value, where)
                name = clip_name(entry.get("videoID"), where, "videoID")
                parts[name] = _parts(name, where)
                if name in clips:
                    raise twice(where, name, places[name])
                clips[name], entries[name], places[name] = Clip(name, split=split, source=source), entry, where
    if not clips:
        raise UserError(f"{annotations}: no clip in {', '.join(FILES.values())}. Fetch the published files.")
    chosen = list(clips.values()) if protocol == "official" else _apply(clips, annotations)
    files = MediaFiles(media, audio, ("video", "audio"))
    described = []
    for clip in chosen:
        clip = _describe(clip, entries[clip.id], places[clip.id], language)
        described.append(attach(files, clip, *parts[clip.id], untrimmed, (clip.id,)))
    files.check_found()
    return described


def _describe(clip: Clip, entry: dict[str, Any], where: str, language: str) -> Clip:
    """The clip with its captions; of both languages it needs only one."""
    keys = [key for key in LANGUAGES[language] if language != "both" or key in entry] or list(LANGUAGES[language])
    captions = {key: texts(entry.get(key), where, key) for key in keys}
    extra = {key: value for key, value in entry.items() if key not in ("videoID", "enCap", "chCap")}
    if language == "both":
        extra["languages"] = [{"enCap": "en", "chCap": "zh"}[key] for key in keys for _ in captions[key]]
    return replace(clip, captions=tuple(text for key in keys for text in captions[key]), extra=extra)


def _parts(name: str, where: str) -> tuple[str, float, float]:
    """Upload, start and end of a videoID."""
    found = re.fullmatch(r"(.+)_(\d{6})_(\d{6})", name)
    if found is None or int(found[3]) <= int(found[2]):
        raise UserError(f"{where}: 'videoID' must be <upload>_<start>_<end> in seconds of six digits, got '{name}'.")
    return found[1], float(found[2]), float(found[3])


def _apply(clips: dict[str, Clip], folder: Path) -> list[Clip]:
    remedy = "The split of HGR is three lists of names; --protocol official takes the published files as splits."
    endings = [f"_{word}.{extension}" for word in ("names", "list") for extension in ("npy", "txt", "json")]
    lists = {
        split: find_list(folder, [f"{word}{ending}" for word in words for ending in endings], remedy)
        for split, words in LISTS.items()
    }
    return assign(clips, lists, folder)[0]


IMPORTER = Importer(
    name="vatex",
    title="VATEX, English and Chinese, the split of HGR or the published one",
    guide="""\
--annotations is a folder with
  vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_*.json (some may be absent)
and, for --protocol hgr, with the lists of names
  trn_names, val_names, tst_names (.npy, .txt or .json)    25,991 / 1,500 / 1,500 clips
A list is a file of one videoID in each line, a JSON list, or an array of strings.
Media: <videoID>.mp4, where videoID is <upload>_<start>_<end>.

  mover import vatex --annotations vatex --media vatex/videos --out data/vatex/manifest.jsonl
  mover import vatex --annotations vatex --media uploads --untrimmed --language both --protocol official \\
      --out data/vatex2/manifest.jsonl""",
    load=load,
    options=(
        Option("protocol", "which clips are trained and tested on", ("hgr", "official"), "hgr"),
        Option("language", "of the captions", tuple(LANGUAGES), "en"),
        untrimmed("<upload> or <videoID>"),
        AUDIO,
    ),
)
