"""Clotho 2.1: sounds of 15 to 30 seconds with five captions each.

`clotho_captions_{development,validation,evaluation}.csv` with the columns file_name, caption_1, …, caption_5.
"""

from __future__ import annotations

from pathlib import Path

from mover.data.clip import Clip
from mover.data.importers.fields import clip_name, text, twice
from mover.data.importers.importer import Importer
from mover.data.importers.media_files import MediaFiles
from mover.data.importers.table import read_csv
from mover.data.media_index import AUDIO_EXTENSIONS
from mover.errors import UserError

PARTS = {"development": "train", "validation": "val", "evaluation": "test"}
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def load(annotations: Path, media: Path, *, source: str = "clotho") -> list[Clip]:
    """Clips in the order of the files development, validation, evaluation: the splits train, val and test.

    annotations: folder with some of the files, or one of them.
    media: folder that holds the sounds under their `file_name`, or the folders development, validation, evaluation.
    The id of a clip is its `file_name` without the extension. Raises UserError naming the row for anything malformed.
    """
    paths = {part: annotations / f"clotho_captions_{part}.csv" for part in PARTS}
    if not annotations.is_dir():
        paths = {part: annotations for part, path in paths.items() if path.name == annotations.name}
    paths = {part: path for part, path in paths.items() if path.exists()}
    if not paths:
        raise UserError(f"{annotations}: expected clotho_captions_development.csv, _validation.csv or _evaluation.csv.")
    files = MediaFiles(media, None, ("audio",))
    clips: dict[str, Clip] = {}
    places: dict[str, str] = {}
    for part, path in paths.items():
        for row in read_csv(path, ("file_name", *CAPTIONS)):
            file_name = clip_name(row.required("file_name"), row.where, "file_name")
            stem, dot, extension = file_name.rpartition(".")
            name = stem if stem and f"{dot}{extension}".lower() in AUDIO_EXTENSIONS else file_name
            if name in clips:
                raise twice(row.where, name, places[name])
            captions = tuple(text(row.required(column), row.where, column) for column in CAPTIONS)
            extra = dict(row.rest("file_name", *CAPTIONS))
            clip = Clip(name, captions, split=PARTS[part], source=source, dataset_version="2.1", extra=extra)
            clips[name], places[name] = files.attach(clip, name, folders=("", part)), row.where
    if not clips:
        raise UserError(f"{annotations}: the tables have no rows. Fetch them again.")
    files.check_found()
    return list(clips.values())


IMPORTER = Importer(
    name="clotho",
    title="Clotho 2.1: sounds with five captions",
    guide="""\
--annotations is a folder with clotho_captions_development.csv, _validation.csv and _evaluation.csv (some may be
absent), or one of these files. They become the splits train, val and test: 3,839 / 1,045 / 1,045 clips.
Media: the sounds under their file names, in one folder or in development, validation and evaluation below it.

  mover import clotho --annotations clotho --media clotho --out data/clotho/manifest.jsonl""",
    load=load,
)
