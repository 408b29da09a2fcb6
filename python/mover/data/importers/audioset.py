"""AudioSet: ten-second parts of uploads with labels of an ontology.

`{balanced_train,unbalanced_train,eval}_segments.csv`: three lines of comment, then upload, start, end and a quoted list
of label codes, with a blank after each comma. `class_labels_indices.csv` (index, mid, display_name) names the codes.
"""

from __future__ import annotations

from pathlib import Path

from mover.data.clip import Clip
from mover.data.importers.fields import clip_name, seconds, text, twice
from mover.data.importers.importer import AUDIO, Importer, Option, untrimmed
from mover.data.importers.media_files import MediaFiles
from mover.data.importers.splits import find_list
from mover.data.importers.table import read_csv
from mover.data.importers.uploads import attach, stamp
from mover.errors import UserError

COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
LABELS = "class_labels_indices.csv"
TRAIN = {
    "balanced": ("balanced_train",),
    "unbalanced": ("unbalanced_train",),
    "both": ("balanced_train", "unbalanced_train"),
}


def load(
    annotations: Path,
    media: Path,
    *,
    train: str = "balanced",
    untrimmed: bool = False,
    audio: Path | None = None,
    source: str = "audioset",
) -> list[Clip]:
    """Clips in the order of the files: training segments, then evaluation segments as the split "test".

    annotations: folder with the tables above. train: which training segments.
    media: folder with `<upload>`, `Y<upload>`, `<upload>_<start>` (seconds or milliseconds) and an extension; with
        `untrimmed`, of whole uploads.
    The caption of a clip is the names of its labels, joined by commas; a clip with one label has it as `label`, and
    `extra.labels` lists all. Raises UserError naming the row for anything malformed and for an unknown label.
    """
    remedy = f"Name the folder that holds {LABELS} and the segments."
    labels = {
        row.required("mid"): text(row.required("display_name"), row.where, "display_name")
        for row in read_csv(find_list(annotations, [LABELS], remedy), ("index", "mid", "display_name"))
    }
    tables = [(find_list(annotations, [f"{part}_segments.csv"], remedy), "train") for part in TRAIN[train]]
    tables += [(path, "test") for path in (annotations / "eval_segments.csv",) if path.exists()]
    files = MediaFiles(media, audio, ("video", "audio"))
    clips: dict[str, Clip] = {}
    places: dict[str, str] = {}
    for path, split in tables:
        for row in read_csv(path, COLUMNS, header=COLUMNS, comment="#", blank_after_comma=True):
            upload = clip_name(row.required("YTID"), row.where, "YTID")
            start, end = (seconds(row.required(column), row.where, column) for column in COLUMNS[1:3])
            if end <= start:
                raise UserError(f"{row.where}: the segment ends at {end:g} s, before it starts at {start:g} s.")
            if upload in clips:
                raise twice(row.where, upload, places[upload])
            names = [_label(code, labels, row.where) for code in row.required("positive_labels").split(",")]
            label = names[0] if len(names) == 1 else None
            clip = Clip(upload, (", ".join(names),), split=split, label=label, source=source, extra={"labels": names})
            stems = (upload, f"Y{upload}", f"{upload}_{start:g}", stamp(upload, start), f"{upload}_{start * 1000:.0f}")
            clips[upload], places[upload] = attach(files, clip, upload, start, end, untrimmed, stems), row.where
    if not clips:
        raise UserError(f"{annotations}: the tables have no rows. Fetch them again.")
    files.check_found()
    return list(clips.values())


def _label(code: str, labels: dict[str, str], where: str) -> str:
    try:
        return labels[code.strip()]
    except KeyError:
        raise UserError(
            f"{where}: the label '{code.strip()}' is not in {LABELS}. Use the table of this release."
        ) from None


IMPORTER = Importer(
    name="audioset",
    title="AudioSet: ten-second segments with labels",
    guide="""\
--annotations is a folder with
  class_labels_indices.csv
  balanced_train_segments.csv and/or unbalanced_train_segments.csv      the split train
  eval_segments.csv (may be absent)                                     the split test
The names of the labels of a clip, joined by commas, are its caption.
Media, audio or video: <upload>, Y<upload>, <upload>_<start>, already cut.

  mover import audioset --annotations audioset --media audioset/audio --out data/audioset/manifest.jsonl""",
    load=load,
    options=(
        Option("train", "which training segments", tuple(TRAIN), "balanced"),
        untrimmed("<upload>"),
        AUDIO,
    ),
)
