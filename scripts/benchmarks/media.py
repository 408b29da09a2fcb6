"""Clips from media files to tensors: decoding against a bare PyAV loop, caches, how long a model waits, the doctor.

A clip has 10 s of H.264 at 320 x 240, 25 frames a second (moving noise, a key frame every 250 frames, x264 medium, crf
23), and AAC in stereo at 44.1 kHz. A sample is 8 frames of 224 x 224, from the middle of as many equal parts, and 10 s
of sound at 16 kHz.

"bare PyAV" is what no code around the decoder can do without: it opens the file once, demultiplexes both tracks
together, decodes video with one thread up to the last frame wanted, scales the 8 frames (VideoFrame.reformat to 299 x
224 rgb24, bilinear, one thread), cuts and stacks them, decodes the sound to its end and resamples it to mono (one
AudioResampler), and makes it float32. "mover" is ClipDataset.sample and a batch of it. Both give equal arrays. With a
cache the sample is drawn from what was decoded before. One pinned thread; they run in turn, 25 times; medians. "CPU" is
the time the process itself ran: on a machine that does other things too, the number to compare.

"waits": the share of the time of a training loop that the loop waits for its loader, batches of 4 such clips, for a
model that leaves the processors alone (as on a GPU; here it sleeps) and takes so many milliseconds a step; 1 and 2
threads of the loader on all processors, by the clock on the wall: whatever else they do makes it longer. The doctor
checks 10,000 rows (clips of 1 s at 64 x 48 with sound), each with a file of its own, after they were imported as
MSR-VTT; "again" is the same with the record of the first time. MiB is the peak above what was in use before.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import manifests
import numpy as np
from measure import keep_freed_pages, peak_mebibytes, timed
from tables import digits, figures
from tables import table as markdown

from mover.config import DataConfig
from mover.data import Clip, ClipDataset, make_loader, write_manifest
from mover.data.doctor import examine
from mover.data.importers import IMPORTERS
from mover.data.sampling import frame_times

SECONDS, FPS, RATE = 10, 25, 44100
FRAMES, SIZE, SAMPLE_RATE = 8, 224, 16000
CLIPS, ROWS, STEPS, RUNS = 16, 10_000, 8, 25
STEP_MS = (250, 500, 1000)
QUICK = {"seconds": 2, "clips": 4, "rows": 200, "steps": 3, "step_ms": (100,)}


def run(quick: bool) -> list[dict]:
    """Rows of four kinds: "sample", "waits", "doctor" and one of versions."""
    settings = {"seconds": SECONDS, "clips": CLIPS, "rows": ROWS, "steps": STEPS, "step_ms": STEP_MS}
    settings |= QUICK if quick else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = _clips(folder, settings["clips"], settings["seconds"])
        return [
            {"kind": "versions", "av": av.__version__, "ffmpeg": av.ffmpeg_version_info},
            *_samples(clips, folder, settings["seconds"]),
            *_waits(clips, folder, settings["steps"], settings["step_ms"]),
            *_doctor(folder, settings["rows"]),
        ]


def table(rows: list[dict]) -> str:
    of_kind: dict[str, list[dict]] = {}
    for row in rows:
        of_kind.setdefault(row["kind"], []).append(row)
    bare = of_kind["sample"][0]["CPU ms"]
    samples = [
        [r["what"], digits(r["CPU ms"]), digits(1e3 / r["CPU ms"]), figures(r["CPU ms"] / bare), digits(r["ms"])]
        for r in of_kind["sample"]
    ]
    waits = [
        [r["cache"], str(r["step ms"]), *(f"{100 * share:.0f} %" for share in r["share"].values())]
        for r in of_kind["waits"]
    ]
    doctor = [
        [
            r["what"],
            f"{r['rows']:,}",
            digits(r["seconds"]),
            digits(r["CPU s"]),
            digits(r["rows"] / r["CPU s"]),
            digits(r["MiB"]),
        ]
        for r in of_kind["doctor"]
    ]
    (versions,) = of_kind["versions"]
    return "\n\n".join(
        [
            markdown(["", "CPU ms a clip", "clips/s of one processor", "/ bare PyAV", "ms"], samples),
            markdown(["cache", "ms a step", "waits, 1 worker", "2 workers"], waits),
            markdown(["", "rows", "seconds", "CPU seconds", "rows/s of one processor", "MiB"], doctor),
            f"PyAV {versions['av']}, FFmpeg {versions['ffmpeg']}.",
        ]
    )


def bare(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (FRAMES, 3, SIZE, SIZE) and float32 (n,): a sample by PyAV alone."""
    pixels: list[np.ndarray] = []
    sound: list[np.ndarray] = []
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        video.thread_count = audio.thread_count = 1
        duration = float(video.duration * video.time_base)
        wanted = list(frame_times(duration, FRAMES, None))
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
        before: Any = None
        for packet in container.demux(video, audio):
            if packet.stream is audio:
                for frame in packet.decode():
                    sound += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
                continue
            for frame in packet.decode() if wanted else ():
                while wanted and before is not None and frame.time > wanted[0]:
                    pixels.append(_square(before))
                    del wanted[0]
                before = frame
        sound += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    samples = np.concatenate(sound)[: round(duration * SAMPLE_RATE)]
    return np.stack(pixels), samples.astype(np.float32) / 32768


def _square(frame: av.VideoFrame) -> np.ndarray:
    width = round(SIZE * frame.width / frame.height)
    image = frame.reformat(width, SIZE, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray()
    left = (width - SIZE) // 2
    return image[:, left : left + SIZE].transpose(2, 0, 1)


def _dataset(
    clips: list[Clip], folder: Path, seconds: float = SECONDS, training: bool = False, **options: Any
) -> ClipDataset:
    config = DataConfig(
        manifest=folder / "m.jsonl", frames=FRAMES, image_size=SIZE, sample_rate=SAMPLE_RATE, audio_seconds=seconds,
        **options,
    )  # fmt: skip
    dataset = ClipDataset(clips, config, ("video", "audio"), None, training=training, progress=False)
    dataset.prepare()
    return dataset


def _samples(clips: list[Clip], folder: Path, seconds: int) -> list[dict]:
    """Milliseconds of one sample, without and with caches; raises where they are not the same."""

    def of(dataset: ClipDataset) -> Callable[[], Any]:
        return lambda: dataset.collate([dataset.sample(0)])

    cached = {
        f"mover, cache {name}": of(_dataset(clips[:1], folder, seconds, cache=name)) for name in ("memory", "disk")
    }
    contenders = {
        "bare PyAV": lambda: bare(clips[0].video),
        "mover": of(_dataset(clips, folder, seconds)),
        **cached,
    }
    pixels, sound = contenders["bare PyAV"]()
    for name in ("mover", *cached):
        batch = contenders[name]()
        same = np.array_equal(batch["video"]["pixels"][0].numpy(), pixels)
        if not same or not np.array_equal(batch["audio"]["waveform"][0].numpy(), sound):
            raise ArithmeticError(f"{name} gives another sample than bare PyAV")
    return [{"kind": "sample", "what": name, **times} for name, times in _in_turn(contenders).items()]


def _in_turn(contenders: dict[str, Callable[[], Any]]) -> dict[str, dict]:
    """Median milliseconds of each contender, by the clock of the process and by that on the wall; A B C A B C …"""
    keep_freed_pages(True)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn in range(RUNS + 1):
        for name, work in contenders.items():
            gc.collect()
            began = time.process_time(), time.perf_counter()
            work()
            if turn:  # the first does not count
                times[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    return {
        name: {"CPU ms": 1e3 * float(np.median(taken, 0)[0]), "ms": 1e3 * float(np.median(taken, 0)[1])}
        for name, taken in times.items()
    }


def _waits(clips: list[Clip], folder: Path, steps: int, step_ms: tuple[int, ...]) -> list[dict]:
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    rows = []
    try:
        for cache in ("none", "disk"):
            for milliseconds in step_ms:
                share = {}
                for workers in (1, 2):
                    dataset = _dataset(clips, folder, training=True, cache=cache, workers=workers)
                    share[str(workers)] = _waiting(dataset, steps, milliseconds)
                rows.append({"kind": "waits", "cache": cache, "step ms": milliseconds, "share": share})
    finally:
        os.sched_setaffinity(0, pinned)
    return rows


def _waiting(dataset: ClipDataset, steps: int, milliseconds: int) -> float:
    """Share of the time between the first step and the last that is spent waiting for a batch."""
    waited = 0.0
    loader: Any = iter(make_loader(dataset, 4))
    next(loader)
    begin = time.perf_counter()
    for _ in range(steps):
        time.sleep(1e-3 * milliseconds)
        waited += timed(lambda: next(loader))[0]
    total = time.perf_counter() - begin
    loader.close()
    return waited / total


def _doctor(folder: Path, count: int) -> list[dict]:
    source = folder / "small.mp4"
    _write(source, 1, 48, 64, 10, 16000)
    media = folder / "small"
    media.mkdir()
    for number in range(count):
        os.link(source, media / f"video{number}.mp4")
    annotations = manifests.write_msrvtt(folder, count)
    clips: list[Clip] = []

    def import_() -> None:
        clips[:] = IMPORTERS["msrvtt"](annotations, media, protocol="full")
        write_manifest(folder / "manifest.jsonl", clips)

    def examine_() -> None:
        examine(clips, folder / "record.jsonl", workers=1, progress=False)

    rows = []
    for what, work in (("import", import_), ("doctor", examine_), ("doctor again", examine_)):
        took: list[float] = []
        began = time.process_time()
        peak = peak_mebibytes(lambda work=work, took=took: took.append(timed(work)[0]), warm=False)
        used = time.process_time() - began
        rows.append({"kind": "doctor", "what": what, "rows": count, "seconds": took[0], "CPU s": used, "MiB": peak})
    return rows


def _clips(folder: Path, count: int, seconds: int) -> list[Clip]:
    """Clips with a file each, alike but for a box of free space at the end, so that caches tell them apart."""
    first = folder / "clip.mp4"
    _write(first, seconds, 240, 320, FPS, RATE)
    content = first.read_bytes()
    clips = []
    for number in range(count):
        path = folder / f"clip{number}.mp4"
        path.write_bytes(content + (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big"))
        clips.append(Clip(f"clip{number}", (), path, path))
    return clips


def _write(path: Path, seconds: int, height: int, width: int, fps: int, rate: int) -> None:
    """Noise that moves under a little noise that flickers, and two tones with a little hiss."""
    random = np.random.default_rng(0)
    ground = random.integers(0, 255, (height // 8 + 20, width // 8 + 20, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "23", "g": "250", "threads": "1"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="stereo")
        for number in range(seconds * fps):
            top, left = (int(60 + 50 * wave(number / 30)) for wave in (np.sin, np.cos))
            image = ground[top : top + height, left : left + width] + random.integers(-8, 8, (height, width, 1))
            picture = av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8), "rgb24")
            picture.pts, picture.time_base = number, Fraction(1, fps)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        moments = np.arange(rate * seconds) / rate
        tones = np.stack([0.4 * np.sin(2 * np.pi * pitch * moments) for pitch in (440, 550)])
        samples = (tones + 0.02 * random.standard_normal(tones.shape)).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        sound.sample_rate, sound.pts = rate, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
