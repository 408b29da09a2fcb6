"""What a report is made of, without training: embeddings, the lines of a log, plans."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mover.config import Config
from mover.data.manifest import Clip
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.metrics import retrieval_metrics
from mover.evaluate.results import provenance
from mover.report.material import Material

HOSTILE = "</script></style>\"'><img src=x onerror=\"alert('caption')\"><script>alert(1)</script> & $x^2$ {{ 7*7 }} 猫"
"""What a caption, an id, a class or the name of a run may hold."""
WORDS = (
    "a small orange triangle in front of stripes", "a large pink arch on an empty ground", "two notes over a rumble",
    "a deep chirping tone, and a cross that grows", "a yellow bar moving in circles", "a ring resting among dots",
)  # fmt: skip


def embeddings_of(
    count: int, *, labels: tuple[str, ...] | None = None, noise: float = 0.6, seed: int = 0
) -> Embeddings:
    """Text, video and audio around a centre for each clip; every third clip has two captions."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(count, 16))
    owner = np.repeat(np.arange(count), 1 + (np.arange(count) % 3 == 0))
    rows = {"text": centres[owner], "video": centres, "audio": centres}
    vectors = {m: (r + noise * random.normal(size=r.shape)).astype(np.float32) for m, r in rows.items()}
    present = {m: np.ones(count, dtype=bool) for m in vectors}
    return Embeddings([f"clip{i}" for i in range(count)], vectors, owner, present, labels)


def log_of(steps: int) -> list[dict[str, Any]]:
    """Lines as a run writes them."""
    parameters = {"all": 1234, "learning": 1000}
    about = {"version": "0.1", "commit": "abc", "torch": "2", "device": "cpu", "training_clips": 9}
    lines: list[dict[str, Any]] = [{"kind": "run", "step": 0, **about, "parameters": parameters}]
    for step in range(1, steps + 1):
        terms = {"volume_contrastive": 4 / step, "pairwise": 5 / step, "total": 9 / step}
        terms |= {"mover": 0.5} if step > steps // 2 else {}
        temperatures = {"pairwise": 0.07, "volume_contrastive": 0.06}
        lines.append(
            {"kind": "train", "step": step, "terms": terms, "temperatures": temperatures, "grad_norm": 9.0 / step}
        )
        if step % 2 == 0:
            recall = {name: min(100.0, 10.0 * step + i) for i, name in enumerate(("T2V", "V2T", "T2VA", "VA2T"))}
            lines.append({"kind": "validation", "step": step, "R@1": recall, "clips": {}, "mean": 10.0 * step})
    return lines


def plans_of(steps: tuple[int, ...], size: int = 8) -> dict[int, dict[str, np.ndarray]]:
    """Plans that move from uniform to the identity, B times."""
    uniform, right = np.full((size, size), 1 / size, dtype=np.float32), np.eye(size, dtype=np.float32)
    shares = np.linspace(0, 1, len(steps))
    pairs = ("text-video", "text-audio", "video-audio")
    return {
        step: {pair: (share * right + (1 - share) * uniform).astype(np.float32) for pair in pairs}
        for step, share in zip(steps, shares, strict=True)
    }


def material_of(
    embeddings: Embeddings, clips: dict[str, Clip], *, name: str = "small", config: Config | None = None, **rest: Any
) -> Material:
    """What is reported of these embeddings, with metrics computed now."""
    metrics = retrieval_metrics(embeddings, torch.device("cpu"))
    meta = {**provenance(embeddings, "mask"), "split": "test", "manifest": "data/manifest.jsonl"}
    return Material(name, embeddings, metrics, meta, torch.device("cpu"), config=config, clips=clips, **rest)
