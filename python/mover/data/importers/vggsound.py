"""VGGSound: ten-second clips with one of 309 labels.

`vggsound.csv`, without a header: upload, first second, label, split ("train" or "test").
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

COLUMNS = ("id", "start", "label", "split")
SECONDS = 10.0


def load(
    annotations: Path, media: Path, *, untrimmed: bool = False, audio: Path | None = None, source: str = "vggsound"
) -> list[Clip]:
    """Clips in the order of the file, called `<upload>_<start>`, six digits; the label is also the caption.

    annotations: `vggsound.csv`, or a folder that holds it. media: folder with `<upload>_<start>.<extension>`; with
    `untrimmed`, of whole uploads. Raises UserError naming the row for anything malformed.
    """
    path = annotations / "vggsound.csv" if annotations.is_dir() else annotations
    files = MediaFiles(media, audio, ("video", "audio"))
    clips: dict[str, Clip] = {}
    places: dict[str, str] = {}
    for row in read_csv(path, COLUMNS, header=COLUMNS, comment="#"):
        upload = clip_name(row.required("id"), row.where, "id")
        start = seconds(row.required("start"), row.where, "start")
        label = text(row.required("label"), row.where, "label")
        split = row.required("split")
        if split not in ("train", "test"):
            raise UserError(f"{row.where}: 'split' must be train or test, got '{split}'. Correct it.")
        name = stamp(upload, start)
        if name in clips:
            raise twice(row.where, name, places[name])
        clip = Clip(name, (label,), split=split, label=label, source=source)
        names = (name, f"{upload}_{start:g}")
        clips[name], places[name] = attach(files, clip, upload, start, start + SECONDS, untrimmed, names), row.where
    if not clips:
        raise UserError(f"{path}: the table has no rows. Fetch it again.")
    files.check_found()
    return list(clips.values())


IMPORTER = Importer(
    name="vggsound",
    title="VGGSound: clips with one of 309 labels",
    guide="""\
--annotations is vggsound.csv, or the folder that holds it: upload, first second, label, split, without a header.
The label of a clip is its caption.
Media: <upload>_<start>.mp4 with the start in six digits, or as it is in the table.

  mover import vggsound --annotations vggsound.csv --media vggsound/video --out data/vggsound/manifest.jsonl""",
    load=load,
    options=(untrimmed("<upload>"), AUDIO),
)
