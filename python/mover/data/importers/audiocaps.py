"""AudioCaps and every data set published in its form.

`train.csv`, `val.csv`, `test.csv` with the columns audiocap_id, youtube_id, start_time, caption: one row per caption,
one caption per training clip and five per validation and test clip. A clip is 10 seconds of an upload.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from mover.data.importers.table import read_csv, to_seconds
from mover.data.manifest import Clip
from mover.data.media_index import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS, MediaIndex
from mover.errors import UserError

SPLITS = ("train", "val", "test")
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
SECONDS = 10.0


@dataclass
class _Entry:
    youtube_id: str
    start: float
    split: str
    captions: list[str] = field(default_factory=list)
    audiocap_ids: list[str] = field(default_factory=list)


def load(annotations: Path, media: Path, *, untrimmed: bool = False, source: str = "audiocaps") -> list[Clip]:
    """Clips in the order of the files train, val, test; the rows of one clip become its captions.

    annotations: a folder with some of `train.csv`, `val.csv`, `test.csv`, or one of these files.
    media: folder with audio or video files named `<youtube_id>`, `Y<youtube_id>`, `<youtube_id>_<start>` or after an
        `audiocap_id` of the clip. A video file serves as both modalities.
    untrimmed: the files are whole uploads, to be cut to 10 s from `start_time`; by default they are cut already.
    The id of a clip is its youtube_id; where one upload gives several clips, `<youtube_id>_<start>`.
    Raises UserError naming the row for anything malformed, and for a clip that is in two splits.
    """
    entries = _read(Path(annotations))
    uploads: dict[str, int] = {}
    for name, _ in entries:
        uploads[name] = uploads.get(name, 0) + 1
    index = MediaIndex(Path(media), AUDIO_EXTENSIONS + VIDEO_EXTENSIONS)
    clips = []
    for entry in entries.values():
        stamped = f"{entry.youtube_id}_{entry.start:g}"
        shared = uploads[entry.youtube_id] > 1
        plain = [] if shared and not untrimmed else [entry.youtube_id, f"Y{entry.youtube_id}"]
        clip = Clip(
            id=stamped if shared else entry.youtube_id,
            captions=tuple(entry.captions),
            start=entry.start if untrimmed else None,
            duration=SECONDS if untrimmed else None,
            split=entry.split,
            source=source,
            extra={"start_time": entry.start, "audiocap_ids": entry.audiocap_ids},
        )
        clips.append(_with_media(clip, index.find(*plain, stamped, *entry.audiocap_ids)))
    if not any(clip.video or clip.audio for clip in clips):
        raise index.nothing_found(clips[0].id)
    return clips


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
            name = row.required("youtube_id")
            start = to_seconds(row.required("start_time"), row.where, "start_time")
            entry = entries.setdefault((name, start), _Entry(name, start, split))
            if entry.split != split:
                raise UserError(f"{row.where}: clip '{name}' is in '{entry.split}' too. Delete it from one of the two.")
            entry.captions.append(row.required("caption"))
            entry.audiocap_ids.append(row.required("audiocap_id"))
    if not entries:
        raise UserError(f"{annotations}: the tables have no rows. Fetch them again.")
    return entries


def _with_media(clip: Clip, file: Path | None) -> Clip:
    if file is None:
        return replace(clip, status={"audio": "missing"})
    if file.suffix.lower() in VIDEO_EXTENSIONS:
        return replace(clip, audio=file, video=file, status={"audio": "ok", "video": "ok"})
    return replace(clip, audio=file, status={"audio": "ok"})
