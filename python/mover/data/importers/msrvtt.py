"""MSR-VTT and every data set published in its form.

One JSON file holds `videos`: [{video_id, category, url, "start time", "end time", split}, …] and
`sentences`: [{caption, video_id, sen_id}, …]. The retrieval splits are separate CSV files with a column `video_id`;
the test list of 1k-A (`MSRVTT_JSFUSION_test.csv`: key, vid_key, video_id, sentence) also fixes one caption per clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mover.data.importers.table import read_csv, read_json
from mover.data.manifest import Clip
from mover.data.media_index import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS, MediaIndex
from mover.errors import UserError

ANNOTATIONS = "MSRVTT_data.json"
_SPLITS = {"validate": "val", "validation": "val"}


def load(
    annotations: Path,
    media: Path,
    *,
    split_lists: Mapping[str, Path] | None = None,
    audio: Path | None = None,
    source: str = "msrvtt",
) -> list[Clip]:
    """Clips in the order of `videos`; all captions are kept, in the order of `sentences`.

    annotations: the JSON file, or a folder that holds `MSRVTT_data.json`.
    media: folder with `<video_id>.<extension>`. audio: folder with separate audio files; by default the audio track
        of the video file. The files are taken as already cut: start and end times refer to the original upload and are
        kept under `extra` only.
    split_lists: split name to CSV file with a column `video_id`. With lists, the splits of the JSON file are ignored,
        clips in no list are left out, and a list with a column `sentence` also replaces the captions.
    Raises UserError naming the entry for anything malformed: an unknown video, an id given twice, a clip without a
    caption, an empty caption.
    """
    path = Path(annotations)
    path = path / ANNOTATIONS if path.is_dir() else path
    document = read_json(path)
    lists = [document.get(key) for key in ("videos", "sentences")] if isinstance(document, dict) else [None]
    if not all(isinstance(entries, list) for entries in lists):
        raise UserError(f"{path}: expected an object with the lists 'videos' and 'sentences'.")
    clips = _videos(document["videos"], path, source)
    captions = _sentences(document["sentences"], path, clips)
    clips = {name: replace(clip, captions=tuple(captions.get(name, ()))) for name, clip in clips.items()}
    if split_lists:
        clips = _apply_lists(clips, split_lists, path)
    for clip in clips.values():
        if not clip.captions:
            raise UserError(f"{path}: video '{clip.id}' has no sentence. Add one or delete the video.")
    return _attach_media(list(clips.values()), Path(media), audio)


def _videos(entries: list[Any], path: Path, source: str) -> dict[str, Clip]:
    clips: dict[str, Clip] = {}
    for position, entry in enumerate(entries):
        where = f"{path}, videos[{position}]"
        name = _string(entry, "video_id", where)
        if name in clips:
            raise UserError(f"{where}: video_id '{name}' occurs twice. Delete one of the two.")
        split = _string(entry, "split", where)
        category = entry.get("category")
        start, end = entry.get("start time"), entry.get("end time")
        timed = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (start, end))
        clips[name] = Clip(
            id=name,
            split=_SPLITS.get(split, split),
            label=None if category is None else str(category),
            duration=float(end) - float(start) if timed and end > start else None,
            source=source,
            extra={key: entry[key] for key in ("url", "start time", "end time") if entry.get(key) not in (None, "")},
        )
    if not clips:
        raise UserError(f"{path}: the list 'videos' is empty. Fetch the file again.")
    return clips


def _sentences(entries: list[Any], path: Path, clips: dict[str, Clip]) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for position, entry in enumerate(entries):
        where = f"{path}, sentences[{position}]"
        name = _string(entry, "video_id", where)
        if name not in clips:
            raise UserError(f"{where}: video_id '{name}' is not in 'videos'. Add the video or delete the sentence.")
        captions.setdefault(name, []).append(_string(entry, "caption", where))
    return captions


def _string(entry: Any, key: str, where: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f"{where}: '{key}' must be a string that is not empty, got {value!r:.80}. Correct or delete it."
        )
    return value.strip()


def _apply_lists(clips: dict[str, Clip], lists: Mapping[str, Path], path: Path) -> dict[str, Clip]:
    chosen: dict[str, Clip] = {}
    for split, list_path in lists.items():
        for row in read_csv(Path(list_path), ["video_id"]):
            name = row.required("video_id")
            if name not in clips:
                raise UserError(f"{row.where}: video_id '{name}' is not in {path}. Use the list of this data set.")
            if name in chosen:
                raise UserError(f"{row.where}: video_id '{name}' is already in the split '{chosen[name].split}'.")
            chosen[name] = replace(clips[name], split=split)
            if "sentence" in row.values:
                chosen[name] = replace(chosen[name], captions=(row.required("sentence"),))
    return {name: chosen[name] for name in clips if name in chosen}


def _attach_media(clips: list[Clip], media: Path, audio: Path | None) -> list[Clip]:
    videos = MediaIndex(media, VIDEO_EXTENSIONS)
    sounds = videos if audio is None else MediaIndex(Path(audio), AUDIO_EXTENSIONS + VIDEO_EXTENSIONS)
    found = []
    for clip in clips:
        files = {"video": videos.find(clip.id), "audio": sounds.find(clip.id)}
        status = {modality: "ok" if file else "missing" for modality, file in files.items()}
        found.append(replace(clip, video=files["video"], audio=files["audio"], status=status))
    if clips and not any(clip.video or clip.audio for clip in found):
        raise videos.nothing_found(clips[0].id)
    return found
