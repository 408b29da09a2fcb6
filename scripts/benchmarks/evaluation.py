"""Evaluation: a file of embeddings from end to end, and exact ranks both ways of a comparison at growing size.

"file": `mover evaluate --embeddings` of 1,000 clips with text, video and audio, all directions, scores and intervals;
as a process of its own, in which importing torch counts, and as a call in a process that has imported it. Best of
three.

"volume" and "cosine": ranks of n texts among n clips and of n clips among n texts, as `mover evaluate` computes them,
from float32 rows. "products" are the matrix products alone, in strips of texts: the floor; "mover" gives both
directions; "stacked Gram matrices" builds every 3 x 3 Gram matrix, takes determinants and gives one direction.
"/ products" compares CPU times. "different" counts the texts whose rank is not that of "mover", of the first 1000.

d = 512, random texts, and clips that have a share of them. "CPU" is the time the process itself ran: on a machine that
does other things too, the number to compare. MiB: peak resident memory above the inputs; of the file as a process,
above nothing.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contrast
import numpy as np
import torch
from measure import interleaved, keep_freed_pages, peak_mebibytes
from tables import digits, milliseconds
from tables import table as markdown

from mover.evaluate.counting import both_ways
from mover.evaluate.directions import Direction
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.embeddings_file import save_embeddings
from mover.evaluate.rank import Sides
from mover.evaluate.run import evaluate_embeddings
from mover.evaluate.standing import Standing

WIDTH, CHUNK, STRIP, CHECKED = 512, 64, 512, 1000
FILE, SIZES, LARGE = 1000, (10_000,), (100_000,)
QUICK_FILE, QUICK = 100, (300,)
RUNS = 3
DIRECTIONS = {"volume": Direction(("text",), ("video", "audio")), "cosine": Direction(("text",), ("video",))}


def run(quick: bool) -> list[dict]:
    """A row for the file, then for each score one for each size; of the large sizes only ours, once."""
    rows = [_file(QUICK_FILE if quick else FILE)]
    for n in QUICK if quick else SIZES:
        rows += [_compared(score, n) for score in DIRECTIONS]
    for n in () if quick else LARGE:
        rows += [_once(score, n) for score in DIRECTIONS]
    return rows


def embeddings(n: int) -> Embeddings:
    """Unit rows, one caption a clip; a text has the cosine .3 or so with its clip's rows, .1 or so of it by chance."""
    random = np.random.default_rng(0)
    text = random.standard_normal((n, WIDTH), dtype=np.float32)
    vectors = {"text": text}
    for modality in ("video", "audio"):
        vectors[modality] = 0.3 * text + random.standard_normal((n, WIDTH), dtype=np.float32)
    for rows in vectors.values():
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    owner = np.arange(n)
    return Embeddings([f"clip{i}" for i in range(n)], vectors, owner, {m: np.ones(n, dtype=bool) for m in vectors})


def ours(given: Embeddings, score: str) -> tuple[Standing, Standing]:
    sides = Sides(given, DIRECTIONS[score], torch.device("cpu"))
    return both_ways(sides.scores(score), sides.usable)


def products(given: Embeddings, score: str) -> None:
    text, *others = (torch.from_numpy(given.vectors[m]) for m in ("text", *DIRECTIONS[score].others))
    for some in text.split(STRIP):
        for other in others:
            some @ other.T


def stacked(given: Embeddings, texts: int) -> torch.Tensor:
    """Ranks of the first texts by Gram matrices and determinants."""
    text, video, audio = (torch.from_numpy(given.vectors[m]) for m in ("text", "video", "audio"))
    better = []
    for own in torch.arange(texts).split(CHUNK):
        volumes = contrast.stacked(text[own], video, audio)
        better.append((volumes < volumes.gather(1, own[:, None])).sum(1))
    return torch.cat(better)


def _compared(score: str, n: int) -> dict:
    given = embeddings(n)
    contenders: dict[str, Callable[[], Any]] = {
        "products": lambda: products(given, score),
        "mover": lambda: ours(given, score),
    }
    entries: dict[str, dict] = {}
    if score == "volume":
        contenders["stacked Gram matrices"] = lambda: stacked(given, n)
        found = torch.from_numpy(ours(given, score)[0].better[:CHECKED])
        entries["stacked Gram matrices"] = {"different": int((stacked(given, min(n, CHECKED)) != found).sum())}
    used: dict[str, list[float]] = {name: [] for name in contenders}

    def clocked(name: str) -> None:
        begin = time.process_time()
        contenders[name]()
        used[name].append(1e3 * (time.process_time() - begin))

    for name, times in interleaved({name: lambda name=name: clocked(name) for name in contenders}, least=3).items():
        peak = peak_mebibytes(contenders[name], warm=False)
        cpu = statistics.median(used[name][1:] or used[name])  # the first call does not count where there are others
        entries[name] = {"time": times, "CPU ms": cpu, "MiB": peak, **entries.get(name, {})}
        print(f"evaluation {score} n={n}: {name} {times['ms']:.0f} ms, {cpu:.0f} CPU, {peak:.0f} MiB", flush=True)
    return {"what": score, "n": n, "d": WIDTH, "contenders": {name: entries[name] for name in contenders}}


def _once(score: str, n: int) -> dict:
    given = embeddings(n)
    begin, cpu = time.perf_counter(), time.process_time()
    peak = peak_mebibytes(lambda: ours(given, score), warm=False)
    entry = {"seconds": time.perf_counter() - begin, "CPU seconds": time.process_time() - cpu, "MiB": peak}
    print(f"evaluation {score} n={n}: {entry['seconds']:.0f} s, {peak:.0f} MiB", flush=True)
    return {"what": score, "n": n, "d": WIDTH, "once": entry}


def _file(n: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "e.npz"
        save_embeddings(embeddings(n), path)
        process = _best(lambda: _command(path))
        keep_freed_pages(True)
        evaluate_embeddings(path)
        call = _best(lambda: _call(path))
    print(
        f"evaluation file n={n}: process {process['CPU seconds']:.2f} s, call {call['CPU seconds']:.2f} s", flush=True
    )
    return {"what": "file", "n": n, "d": WIDTH, "process": process, "call": call}


def _command(path: Path) -> dict:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "mover", "evaluate", "--embeddings", str(path)], check=True, capture_output=True
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "CPU seconds": used, "MiB": after.ru_maxrss / 1024}


def _call(path: Path) -> dict:
    begin, cpu = time.perf_counter(), time.process_time()
    evaluate_embeddings(path)
    return {"seconds": time.perf_counter() - begin, "CPU seconds": time.process_time() - cpu}


def _best(measured: Callable[[], dict]) -> dict:
    runs = [measured() for _ in range(RUNS)]
    return {key: min(entry[key] for entry in runs) for key in runs[0]}


def table(rows: list[dict]) -> str:
    """Markdown: the file, then a line for each size and contender."""
    lines, large, file = [], [], rows[0]
    for row in rows[1:]:
        start = [row["what"], f"{row['n']:,}"]
        if "once" in row:
            large.append([*start, *(digits(row["once"][key]) for key in ("seconds", "CPU seconds", "MiB"))])
            continue
        floor = row["contenders"]["products"]["CPU ms"]
        for name, entry in row["contenders"].items():
            times = [milliseconds(entry["time"]), digits(entry["CPU ms"]), f"{entry['CPU ms'] / floor:.2f}"]
            lines.append([*start, name, *times, digits(entry["MiB"]), str(entry.get("different", ""))])
    parts = [
        markdown(
            ["file, n", "", "seconds", "CPU", "MiB"],
            [[f"{file['n']:,}", name, *(digits(file[key][c]) if c in file[key] else "" for c in
              ("seconds", "CPU seconds", "MiB"))] for key, name in (("process", "a process"), ("call", "a call"))],
        ),
        markdown(["", "n", "", "ms", "CPU ms", "/ products", "MiB", "different"], lines),
    ]  # fmt: skip
    if large:
        parts.append(markdown(["once, mover", "n", "seconds", "CPU", "MiB"], large))
    return "\n\n".join(parts)
