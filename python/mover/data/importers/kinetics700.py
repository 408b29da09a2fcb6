"""Kinetics-700 and its kin: clips of about ten seconds with an action each.

`train.csv`, `val.csv` (or `validate.csv`), `test.csv` with the columns label, youtube_id, time_start, time_end, split;
the label may be absent.
"""

from __future__ import annotations

from pathlib import Path

from mover.data.clip import Clip
from mover.data.importers.fields import clip_name, seconds, text, twice
from mover.data.importers.importer import AUDIO, Importer, untrimmed
from mover.data.importers.media_files import MediaFiles
from mover.data.importers.table import read_csv
from mover.data.importers.uploads import attach, stamp
from mover.errors import UserError

TABLES = ("train.csv", "val.csv", "validate.csv", "test.csv")
COLUMNS = ("youtube_id", "time_start", "time_end", "split")
_SPLITS = {"validate": "val", "validation": "val"}


def load(
    annotations: Path, media: Path, *, untrimmed: bool = False, audio: Path | None = None, source: str = "kinetics700"
) -> list[Clip]:
    """Clips in the order of the tables, called `<upload>_<start>_<end>`, six digits; the label is also the caption.

    annotations: a folder with some of the tables, or one table.
    media: folder with `<upload>_<start>_<end>.<extension>`, or with a folder for each split, for each label, or for
        each label within each split; with `untrimmed`, of whole uploads.
    Raises UserError naming the row for anything malformed.
    """
    paths = [annotations / name for name in TABLES] if annotations.is_dir() else [annotations]
    paths = [path for path in paths if path.exists() or not annotations.is_dir()]
    if not paths:
        raise UserError(f"{annotations}: expected {', '.join(TABLES)}. Name the folder that holds them, or one table.")
    files = MediaFiles(media, audio, ("video", "audio"))
    clips: dict[str, Clip] = {}
    places: dict[str, str] = {}
    for path in paths:
        for row in read_csv(path, COLUMNS):
            upload = clip_name(row.required("youtube_id"), row.where, "youtube_id")
            start, end = (seconds(row.required(column), row.where, column) for column in COLUMNS[1:3])
            if end <= start:
                raise UserError(f"{row.where}: the clip ends at {end:g} s, before it starts at {start:g} s.")
            published = clip_name(row.required("split"), row.where, "split")  # a folder may be called after it
            split = _SPLITS.get(published, published)
            label = clip_name(row.required("label"), row.where, "label") if "label" in row.values else None
            name = stamp(upload, start, end)
            if name in clips:
                raise twice(row.where, name, places[name])
            captions = () if label is None else (text(label, row.where, "label"),)
            clip = Clip(
                name, captions, split=split, label=label, source=source, extra=dict(row.rest("label", *COLUMNS))
            )
            parts = ("", published, *({"val", "validate"} if split == "val" else ()))
            folders = [*parts, *(f"{part}/{label}".lstrip("/") for part in parts if label)]
            clips[name] = attach(files, clip, upload, start, end, untrimmed, (name,), tuple(folders))
            places[name] = row.where
    if not clips:
        raise UserError(f"{annotations}: the tables have no rows. Fetch them again.")
    files.check_found()
    return list(clips.values())


IMPORTER = Importer(
    name="kinetics700",
    title="Kinetics-700, and 400 and 600: clips with an action",
    guide="""\
--annotations is a folder with train.csv, val.csv (or validate.csv) and test.csv (some may be absent), or one of them.
Columns: label (may be absent), youtube_id, time_start, time_end, split. The label of a clip is its caption.
Media: <youtube_id>_<start>_<end>.mp4 with times in six digits, in one folder, in folders by split, by label, or both.

  mover import kinetics700 --annotations k700/annotations --media k700 --out data/k700/manifest.jsonl""",
    load=load,
    options=(untrimmed("<youtube_id>"), AUDIO),
)
