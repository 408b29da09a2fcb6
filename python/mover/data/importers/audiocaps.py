"""AudioCaps and every data set published in its form.

`train.csv`, `val.csv`, `test.csv` with the columns audiocap_id, youtube_id, start_time, caption: one row per caption,
one caption per training clip and five per validation and test clip. A clip is 10 seconds of an upload.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mover.data.clip import Clip
from mover.data.importers.fields import clip_name, seconds
from mover.data.importers.importer import AUDIO, Importer, Option, untrimmed
from mover.data.importers.media_files import MediaFiles
from mover.data.importers.table import read_csv
from mover.data.importers.uploads import attach, stamp
from mover.errors import UserError

SPLITS = ("train", "val", "test")
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
SECONDS = 10.0


@dataclass
class _Entry:
    where: str
    youtube_id: str
    start: float
    split: str
    captions: list[str] = field(default_factory=list)
    audiocap_ids: list[str] = field(default_factory=list)
    rest: list[dict[str, str]] = field(default_factory=list)


def load(
    annotations: Path,
    media: Path,
    *,
    release: str = "1",
    untrimmed: bool = False,
    audio: Path | None = None,
    source: str = "audiocaps",
) -> list[Clip]:
    """Clips in the order of the files train, val, test; the rows of one clip become its captions.

    annotations: a folder with some of `train.csv`, `val.csv`, `test.csv`, or one of these files.
    media: folder with audio or video files named `<youtube_id>`, `Y<youtube_id>`, `<youtube_id>_<start>` or after an
        `audiocap_id` of the clip. A video file serves as both modalities.
    release: "1" or "2", kept as the version of the data set; the files of both have the same form.
    untrimmed: the files are whole uploads, to be cut to 10 s from `start_time`; by default they are cut already.
    The id of a clip is its youtube_id; where one upload gives several clips, `<youtube_id>_<start>`.
    Raises UserError naming the row for anything malformed, and for a clip that is in two splits.
    """
    entries = _read(annotations)
    uploads: dict[str, int] = {}
    for name, _ in entries:
        uploads[name] = uploads.get(name, 0) + 1
    files = MediaFiles(media, audio, ("audio",))
    clips: dict[str, Clip] = {}
    for entry in entries.values():
        plain, stamped = entry.youtube_id, f"{entry.youtube_id}_{entry.start:g}"
        shared = uploads[plain] > 1
        name = stamped if shared else plain
        if name in clips:
            raise UserError(f"{entry.where}: '{name}' is another clip's id too. Delete one of the two.")
        extra = {"audiocap_ids": entry.audiocap_ids, **({"rows": entry.rest} if any(entry.rest) else {})}
        clip = Clip(name, tuple(entry.captions), split=entry.split, source=source, dataset_version=release, extra=extra)
        names = (stamped, stamp(plain, entry.start), *entry.audiocap_ids)
        names = names if shared else (plain, f"Y{plain}", *names)
        clips[name] = attach(files, clip, plain, entry.start, entry.start + SECONDS, untrimmed, names)
    files.check_found()
    return list(clips.values())


def _read(annotations: Path) -> dict[tuple[str, float], _Entry]:
    if annotations.is_dir():
        paths = {split: annotations / f"{split}.csv" for split in SPLITS}
        paths = {split: path for split, path in paths.items() if path.exists()}
    else:
        paths = {annotations.stem: annotations}
    if not paths or not set(paths) <= set(SPLITS):
        raise UserError(f"{annotations}: expected train.csv, val.csv or test.csv, or a folder that holds them.")
    entries: dict[tuple[str, float], _Entry] = {}
    for split, path in paths.items():
        for row in read_csv(path, COLUMNS):
            name = clip_name(row.required("youtube_id"), row.where, "youtube_id")
            start = seconds(row.required("start_time"), row.where, "start_time")
            entry = entries.setdefault((name, start), _Entry(row.where, name, start, split))
            if entry.split != split:
                raise UserError(f"{row.where}: clip '{name}' is in '{entry.split}' too. Delete it from one of the two.")
            entry.captions.append(row.required("caption"))
            entry.audiocap_ids.append(clip_name(row.required("audiocap_id"), row.where, "audiocap_id"))
            entry.rest.append(row.rest(*COLUMNS))
    if not entries:
        raise UserError(f"{annotations}: the tables have no rows. Fetch them again.")
    return entries


IMPORTER = Importer(
    name="audiocaps",
    title="AudioCaps 1 and 2, and sets published in their form",
    guide="""\
--annotations is a folder with train.csv, val.csv and test.csv (some may be absent), or one of these files. Columns:
audiocap_id, youtube_id, start_time, caption. The rows of one clip become its captions.
Media, audio or video, already cut to 10 s: <youtube_id>, Y<youtube_id>, <youtube_id>_<start> or <audiocap_id>.

  mover import audiocaps --annotations audiocaps/dataset --media audiocaps/audio --out data/audiocaps/manifest.jsonl
  mover import audiocaps --annotations audiocaps/dataset2.0 --release 2 --media uploads --untrimmed \\
      --out data/audiocaps2/manifest.jsonl""",
    load=load,
    options=(
        Option("release", "of the data set, kept as its version", ("1", "2"), "1"),
        untrimmed("<youtube_id>"),
        AUDIO,
    ),
)
