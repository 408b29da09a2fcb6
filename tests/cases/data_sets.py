"""Every public data set in small: its files under the names, fields and folders in which it is published, those that
docs/datasets.md shows, and a handful of clips of ten seconds."""

from __future__ import annotations

import json
import os
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cases.annotations import (
    AUDIOCAPS_HEADER,
    AUDIOSET_COMMENTS,
    AUDIOSET_LABELS,
    CLOTHO_HEADER,
    KINETICS_HEADER,
    MSRVTT_TEST_HEADER,
    dump_pickle,
    msrvtt_document,
    msrvtt_sentence,
    msrvtt_video,
    vatex_entry,
)
from cases.media import RATE, MediaMaker

SECONDS = 10


class Library:
    """A few clips, made once, that stand in for the media of all sets."""

    def __init__(self, folder: Path, count: int = 6) -> None:
        self.videos, self.sounds = [], []
        for number in range(count):
            tone = MediaMaker.tone(SECONDS, frequency=200 + 90 * number)
            levels = [(30 * number + 2 * frame) % 250 for frame in range(8 * SECONDS)]
            self.videos.append(MediaMaker.write(folder / f"{number}.mp4", MediaMaker.grey(levels), samples=tone))
            self.sounds.append(folder / f"{number}.wav")
            with wave.open(str(self.sounds[-1]), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", ""))
                file.writeframes((32767 * tone).astype(np.int16).tobytes())

    def put(self, folder: Path, names: Iterable[str]) -> None:
        """Files of these names, `.wav` or video, in the folder."""
        for number, name in enumerate(names):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            stock = self.sounds if path.suffix == ".wav" else self.videos
            os.link(stock[number % len(stock)], path)


def _text(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


def msrvtt(root: Path, library: Library) -> None:
    """Eight clips; the lists leave video3 to 1k-A's test, whose media are there, and name one that is not there."""
    names = [f"video{number}" for number in range(8)]
    splits = ["train"] * 4 + ["validate"] * 2 + ["test"] * 2
    _text(root / "msrvtt" / "MSRVTT_data.json", msrvtt_document(
        [msrvtt_video(name, split) for name, split in zip(names, splits, strict=True)],
        [msrvtt_sentence(name, f"a person does {word} in {name}", n) for n, word in enumerate(("this", "that"))
         for name in names],
    ))  # fmt: skip
    for size in ("9k", "7k"):
        _text(root / "msrvtt" / f"MSRVTT_train.{size}.csv", "video_id\n" + "\n".join(names[:5]) + "\n")
    rows = "".join(f"ret{n},msr{n},{name},a person in {name}\n" for n, name in enumerate(names[5:]))
    _text(root / "msrvtt" / "MSRVTT_JSFUSION_test.csv", MSRVTT_TEST_HEADER + rows)
    _text(root / "msrvtt" / "train_list_miech.txt", "\n".join(names[:5]) + "\n")
    _text(root / "msrvtt" / "test_list_miech.txt", "\n".join(names[5:]) + "\n")
    library.put(root / "msrvtt" / "videos", (f"{name}.mp4" for name in names if name != "video0"))


def audiocaps(root: Path, library: Library) -> None:
    """One caption to train, several to test; ids with leading dashes; one upload is gone."""
    for release in ("dataset", "dataset2.0"):
        for split, count, captions in (("train", 4, 1), ("val", 2, 2), ("test", 3, 2)):
            rows = [
                f'{n}{c},-{split}{n},{10 * n},"A dog barks {n} times, then {c} cars pass"\n'
                for n in range(count) for c in range(captions)
            ]  # fmt: skip
            _text(root / "audiocaps" / release / f"{split}.csv", AUDIOCAPS_HEADER + "".join(rows))
    names = [f"-train{n}.wav" for n in range(4)] + ["Y-val0.wav", "-val1_10.wav", "-test0.wav", "-test2.wav"]
    library.put(root / "audiocaps" / "audio", names)


def vatex(root: Path, library: Library) -> None:
    """Cut clips in vatex/videos, whole uploads in uploads; the split of HGR."""
    ids = {part: [f"-{part}{n}_00000{n}_00000{n + 7}" for n in range(3)] for part in ("trn", "val", "tst")}
    _text(root / "vatex" / "vatex_training_v1.0.json", [vatex_entry(name) for name in ids["trn"]])
    validation = [vatex_entry(name) for name in ids["val"] + ids["tst"]]
    _text(root / "vatex" / "vatex_validation_v1.0.json", validation)
    for part, names in ids.items():
        np.save(root / "vatex" / f"{part}_names.npy", np.array(names))
    every = [name for names in ids.values() for name in names]
    library.put(root / "vatex" / "videos", (f"{name}.mp4" for name in every))
    library.put(root / "uploads", (f"{name.split('_')[0]}.mp4" for name in every))


def clotho(root: Path, library: Library) -> None:
    """Five captions each; names with blanks; folders as the archives unpack."""
    for part in ("development", "validation", "evaluation"):
        names = [f"Rain on {part} roof {n}.wav" for n in range(3)]
        rows = (name + "".join(f",{word} {name[:-4]}" for word in "abcde") + "\n" for name in names)
        _text(root / "clotho" / f"clotho_captions_{part}.csv", CLOTHO_HEADER + "".join(rows))
        library.put(root / "clotho" / part, names)


def vast_json(root: Path, library: Library) -> None:
    """VAST's file of one set, captions as strings and lists, with sounds beside the videos; and one of pre-training."""
    folder = root / "annotations" / "msrvtt"
    _text(folder / "descs_ret_train.json", [{"video_id": f"video{n}", "desc": f"clip {n}"} for n in range(4)])
    _text(folder / "descs_ret_test.json", [{"video_id": f"video{n}", "desc": [f"clip {n}"]} for n in range(4, 7)])
    library.put(root / "videos", (f"video{n}.mp4" for n in range(7)))
    library.put(root / "audio", (f"video{n}.wav" for n in range(7)))
    entries = [{"clip_id": f"-c.{n}", "vast_cap": f"clip {n}", "subtitle": "", "url": ""} for n in range(3)]
    _text(root / "annotations150k.json", entries)
    library.put(root / "videos", (f"-c.{n}.mp4" for n in range(3)))


def sounddescs(root: Path, library: Library) -> None:
    """Pickles and lists of ids."""
    ids = {split: [f"0{split}{n}" for n in range(3)] for split in ("train", "val", "test")}
    every = [name for names in ids.values() for name in names]
    for split, names in ids.items():
        _text(root / "sounddescs" / f"{split}_list.txt", "\n".join(names) + "\n")
    dump_pickle(root / "sounddescs" / "descriptions.pkl", {name: f"Steam engine {name}." for name in every})
    dump_pickle(root / "sounddescs" / "categories.pkl", {name: ["Trains"] for name in every})
    library.put(root / "sounddescs" / "audio", (f"{name}.wav" for name in every))


def vggsound(root: Path, library: Library) -> None:
    """A table without a header."""
    rows = [(f"--vgg{n}", n, f"dog barking {n % 2}", "test" if n > 3 else "train") for n in range(7)]
    _text(root / "vggsound.csv", "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in rows))
    library.put(root / "vggsound" / "video", (f"{upload}_{start:06d}.mp4" for upload, start, *_ in rows))


def audioset(root: Path, library: Library) -> None:
    """Three lines of comment, blanks after commas; sounds of the balanced part, and whole uploads."""
    parts = {"balanced_train": "bal", "unbalanced_train": "unb", "eval": "evl"}
    _text(root / "audioset" / "class_labels_indices.csv", AUDIOSET_LABELS)
    for part, stem in parts.items():
        labels = ("/m/09x0r,/t/dd00088", "/m/05zppz", "/t/dd00088")
        rows = "".join(f'-{stem}{n}, {n}.000, {n + 8}.000, "{codes}"\n' for n, codes in enumerate(labels))
        _text(root / "audioset" / f"{part}_segments.csv", AUDIOSET_COMMENTS + rows)
    library.put(root / "audioset" / "audio", (f"-{stem}{n}.wav" for stem in ("bal", "evl") for n in range(3)))
    library.put(root / "uploads", (f"-{stem}{n}.mp4" for stem in parts.values() for n in range(3)))


def kinetics700(root: Path, library: Library) -> None:
    """Tables by split; the test clips have no labels."""
    for split in ("train", "val", "test"):
        lines = [f"air drumming {n},-{split}{n},{n},{n + 10},{split}" for n in range(3)]
        header = KINETICS_HEADER
        if split == "test":
            header, lines = header.partition(",")[2], [line.partition(",")[2] for line in lines]
        _text(root / "k700" / "annotations" / f"{split}.csv", header + "\n".join(lines) + "\n")
        library.put(root / "k700" / split, (f"-{split}{n}_00000{n}_00001{n}.mp4" for n in range(3)))


BUILDERS = {
    "msrvtt": msrvtt, "audiocaps": audiocaps, "vatex": vatex, "clotho": clotho, "vast-json": vast_json,
    "sounddescs": sounddescs, "vggsound": vggsound, "audioset": audioset, "kinetics700": kinetics700,
}  # fmt: skip
"""Importer to what writes its data set below a folder."""
