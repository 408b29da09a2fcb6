"""The folder of the embedded data set.

MSRVTT_data.json   annotations as MSR-VTT has them
audiocaps/*.csv    the same captions as AudioCaps has them
videos/*.mp4       the clips
stills/*.png       if asked for, a picture of each scene from another take, at rest
manifest.jsonl     what the MSR-VTT importer makes of the above
tokenizer.json     byte-level BPE trained on the training captions
clips.csv          what is in each clip; nothing reads it but people
dataset.json       the settings, and the sign that the folder is ours and complete
"""

from __future__ import annotations

import csv
import functools
import io
import json
import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from mover.data.clip import Clip, Reference
from mover.data.importers import IMPORTERS
from mover.data.importers.audiocaps import COLUMNS as AUDIOCAPS_COLUMNS
from mover.data.importers.msrvtt import ANNOTATIONS
from mover.data.made.folder import MANIFEST, make_folder
from mover.data.manifest import write_atomically, write_manifest
from mover.data.progress import progress_bar
from mover.data.sampling import generator
from mover.data.synthetic.captions import describe, describe_often
from mover.data.synthetic.design import FPS, MOTIONS, SAMPLE_RATE, SECONDS, SHAPES, Scene, scenes
from mover.data.synthetic.pictures import draw
from mover.data.synthetic.sounds import play
from mover.data.synthetic.writing import write_mp4
from mover.data.tokenizer import Tokenizer

NAME = "mover-synth"
VERSION = 2
"""Raised whenever equal settings would give other clips, captions or labels."""

CAPTIONS = 8
"""Captions of a training clip."""

STILL = "still"
"""Name of the modality of stills."""

_PICTURE, _SOUND, _WORDS, _STILL = 2, 3, 4, 5
_PER_PROCESS = 100
"""Clips below which a process of its own costs more than it saves."""


def generate(
    out: Path,
    *,
    train: int = 1200,
    validation: int = 200,
    test: int = 200,
    seed: int = 0,
    workers: int = 2,
    progress: bool = True,
    stills: bool = False,
) -> Path:
    """Make the embedded data set in the folder `out`; gives the path of its manifest.

    train, validation, test: clips per split. Equal arguments give equal bytes.
    workers: processes that draw and encode; they import the main module, so a script that calls this function with
        more than one must do so under `if __name__ == "__main__"`.
    stills: a picture beside each clip, as a fourth modality; everything else is the same with and without.
    The folder appears when it is complete. One with the same settings is left as it is, one with other settings is
    replaced. Raises UserError for a folder that holds anything else, and for counts that cannot be met.
    """
    settings = {
        "name": NAME, "version": VERSION, "seed": seed, "train": train, "validation": validation, "test": test
    }  # fmt: skip
    settings |= {"stills": True} if stills else {}
    plan = scenes(train, validation, test, seed)
    return make_folder(out, settings, lambda folder: _fill(folder, plan, seed, workers, progress, stills))


def _fill(folder: Path, plan: Sequence[Scene], seed: int, workers: int, progress: bool, stills: bool) -> None:
    """Write everything but the sign."""
    captions = [_captions(scene, seed) for scene in plan]
    _write_msrvtt(folder / ANNOTATIONS, plan, captions)
    (folder / "audiocaps").mkdir()
    for split in ("train", "val", "test"):
        _write_audiocaps(folder / "audiocaps" / f"{split}.csv", split, plan, captions)
    attributes = list(plan[0].attributes())
    rows = [[scene.id, scene.split, *scene.attributes().values()] for scene in plan]
    _write_csv(folder / "clips.csv", ["id", "split", *attributes], rows)
    (folder / "videos").mkdir()
    _write_clips(folder / "videos", plan, seed, workers, progress)
    clips = IMPORTERS["msrvtt"](folder, folder / "videos", protocol="full", source=NAME)
    write_manifest(folder / MANIFEST, _with_stills(clips, folder / "stills", plan, seed) if stills else clips)
    training = [text for scene, texts in zip(plan, captions, strict=True) if scene.split == "train" for text in texts]
    Tokenizer.train(training, max_tokens=64).save(folder / "tokenizer.json")


def _with_stills(clips: Sequence[Clip], folder: Path, plan: Sequence[Scene], seed: int) -> list[Clip]:
    """Write the stills of all scenes, and name them in the clips."""
    folder.mkdir()
    for scene in plan:
        rest = replace(scene, motion=MOTIONS.index("still"))
        frame = draw(rest, generator(seed, _STILL, scene.number))[0]
        Image.fromarray(frame).save(folder / f"{scene.id}.png")
    return [replace(clip, others={STILL: Reference(folder / f"{clip.id}.png")}) for clip in clips]


def _captions(scene: Scene, seed: int) -> list[str]:
    random = generator(seed, _WORDS, scene.number)
    return describe_often(scene, CAPTIONS, random) if scene.split == "train" else [describe(scene, random, full=True)]


def _write_clip(folder: Path, seed: int, scene: Scene) -> None:
    frames = draw(scene, generator(seed, _PICTURE, scene.number))
    samples = play(scene, generator(seed, _SOUND, scene.number))
    write_mp4(folder / f"{scene.id}.mp4", frames, FPS, samples, SAMPLE_RATE)


def _write_clips(folder: Path, plan: Sequence[Scene], seed: int, workers: int, progress: bool) -> None:
    """Write the files of all scenes, in processes of their own when there are enough scenes to repay their start."""
    work = functools.partial(_write_clip, folder, seed)
    with progress_bar("writing clips", len(plan), progress) as advance:
        if workers <= 1 or len(plan) < _PER_PROCESS * 2:
            for scene in plan:
                work(scene)
                advance()
            return
        count = min(workers, len(plan) // _PER_PROCESS)
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(count, context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
        try:
            for _ in pool.map(work, plan, chunksize=8):
                advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_msrvtt(path: Path, plan: Sequence[Scene], captions: Sequence[Sequence[str]]) -> None:
    videos = [
        {
            "category": SHAPES[scene.shape],
            "url": "",
            "video_id": scene.id,
            "start time": 0.0,
            "end time": SECONDS,
            "split": "validate" if scene.split == "val" else scene.split,
            "id": scene.number,
        }
        for scene in plan
    ]
    pairs = [(scene.id, caption) for scene, texts in zip(plan, captions, strict=True) for caption in texts]
    sentences = [{"caption": text, "video_id": name, "sen_id": number} for number, (name, text) in enumerate(pairs)]
    document = {"info": {"description": NAME}, "videos": videos, "sentences": sentences}
    write_atomically(path, json.dumps(document, indent=1))


def _write_audiocaps(path: Path, split: str, plan: Sequence[Scene], captions: Sequence[Sequence[str]]) -> None:
    pairs = [(scene, caption) for scene, texts in zip(plan, captions, strict=True) for caption in texts]
    rows = [[n, scene.id, 0, caption] for n, (scene, caption) in enumerate(pairs, start=1) if scene.split == split]
    _write_csv(path, AUDIOCAPS_COLUMNS, rows)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
