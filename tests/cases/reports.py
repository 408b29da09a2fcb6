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


def diagnostics_of(steps: int, matches: bool = False) -> list[dict[str, Any]]:
    """Lines of diagnostics as a run writes them, every second step; audio comes at step 4, nothing is complete before.

    matches: whether the run has a matching.
    """
    lines = []
    for step in range(2, steps + 1, 2):
        share = step / steps
        heard = step >= 4
        joint = 80 * share if heard else None
        plan = {"rows": 9, "columns": 9, "entropy": 1 - 0.9 * share, "accuracy": share, "mass": 0.8 * share,
                "marginal_error": 1e-4, "iterations": 7}  # fmt: skip
        true, other = ({"mean": v, "10%": v - 0.1, "50%": v, "90%": v + 0.05} for v in (0.95 - 0.6 * share, 0.95))
        line = {
            "kind": "diagnostics", "step": step, "volumes": {"positives": true, "negatives": other} if heard else None,
            "cosines": {"positives": true, "negatives": other},
            "modalities": {m: {"rows": 9, "cosine": 0.2, "effective_rank": 5.0} for m in ("text", "video", "audio")},
            "plans": {"text-video": plan, "text-audio": plan if heard else None},
            "R@1": {"T2V": 60 * share, "V2T": 40 * share, "T2VA": joint, "VA2T": joint},
            "clips": {"T2V": 9, "V2T": 9, "T2VA": 9, "VA2T": 9},
            "gradients": {"towers": {"text": 2.0, "video": None, "audio": 1 / step}, "heads": 0.5},
            "temperatures": {"pairwise": 0.07},
        }  # fmt: skip
        if matches:
            line["matches"] = {"kept": 0.5 * share, "right": share} if heard else None
        lines.append(line)
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
