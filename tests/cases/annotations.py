"""Annotations in the form in which the data sets are published: fields, first lines, comments."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

AUDIOCAPS_HEADER = "audiocap_id,youtube_id,start_time,caption\n"
AUDIOSET_LABELS = (
    'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n2,/t/dd00088,"Gush"\n'
)
AUDIOSET_COMMENTS = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=3, num_segs=3, num_unique_labels=527, num_positive_labels=4\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
CLOTHO_HEADER = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
KINETICS_HEADER = "label,youtube_id,time_start,time_end,split\n"
MSRVTT_TEST_HEADER = "key,vid_key,video_id,sentence\n"
_URL = "https://www.youtube.com/watch?v=-9lZi22q-Eo"


def msrvtt_video(name: str, split: str = "train", **more: Any) -> dict[str, Any]:
    """An entry of `videos`."""
    entry = {"video_id": name, "split": split, "category": 3, "url": _URL}
    return entry | {"start time": 2.5, "end time": 12.5, "id": 7} | more


def msrvtt_sentence(name: str, caption: str = "a dog", number: int = 0) -> dict[str, Any]:
    """An entry of `sentences`."""
    return {"video_id": name, "caption": caption, "sen_id": number}


def msrvtt_document(videos: Sequence[Any], sentences: Sequence[Any]) -> dict[str, Any]:
    """MSRVTT_data.json."""
    return {"info": {"year": "2016"}, "videos": videos, "sentences": sentences}


def vatex_entry(name: str, **more: Any) -> dict[str, Any]:
    """An entry of vatex_training_v1.0.json, with fewer captions."""
    return {"videoID": name, "enCap": [f"a man {name}", "two"], "chCap": [f"一个人 {name}", "二", "三"]} | more


def dump_pickle(path: Path, value: Any, protocol: int = 2) -> None:
    """A pickle, as SoundDescs has its descriptions."""
    path.write_bytes(pickle.dumps(value, protocol))
