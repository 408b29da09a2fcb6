"""The folder of a run: who may write to it, and what lies where."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mover.config import Config
from mover.configs import differences, load_config, save_config
from mover.durable_file import durable_file
from mover.errors import UserError
from mover.train.checkpoint import find_checkpoint, load_checkpoint_config

_FREE_ON_RESUME = (
    "name", "output", "data.manifest", "data.tokenizer", "data.cache", "data.cache_folder", "data.workers",
    "train.steps", "train.validate_every", "train.checkpoint_every", "train.log_every", "train.diagnose_every",
    "train.device", "train.threads",
)  # fmt: skip
"""Settings that a resumed run may change, beside those of evaluation: none of them changes what a step computes, but
for `train.steps`, which moves the end of the schedules. But `data.cache` features may neither come nor go: with it
nothing is drawn at random from frames and sound."""


class RunFolder:
    """`<output>/<name>`: config.yaml, log.jsonl, checkpoints/{last,best}, plans/step-000100.npz, metrics.json,
    embeddings.npz, curves.png, plan.png, report.html."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.log = path / "log.jsonl"
        self.last = path / "checkpoints" / "last"
        self.best = path / "checkpoints" / "best"
        self.curves = path / "curves.png"
        self.plan = path / "plan.png"
        self.plans = path / "plans"
        self.metrics = path / "metrics.json"
        self.embeddings = path / "embeddings.npz"
        self.report = path / "report.html"

    def of_split(self, path: Path, split: str, config: Config) -> Path:
        """metrics.json or embeddings.npz of a split: that of another than the test split is metrics-SPLIT.json."""
        return path if split == config.data.test_split else path.with_stem(f"{path.stem}-{split}")

    @property
    def used(self) -> bool:
        """Whether a run has written here."""
        return any(path.exists() for path in (self.config, self.log, self.last.parent))

    def admit(self, config: Config, *, resume: bool, overwrite: bool) -> Path | None:
        """Check that a run with `config` may write here; changes nothing on disk.

        Returns:
            the checkpoint to resume from, None to start anew.

        Raises:
            UserError: the folder is in use and neither flag says what to do, there is nothing to resume, or the
                checkpoint belongs to other settings.
        """
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other: give one.")
        if resume:
            checkpoint = find_checkpoint(self.last)
            self._check_same(load_checkpoint_config(checkpoint), config)
            return checkpoint
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file and cannot hold a run: choose another --name.")
        if self.used and not overwrite:
            raise UserError(
                f"{self.path} already holds a run{self._how_it_differs(config)}: continue it with --resume, "
                "replace it with --overwrite, or choose another --name."
            )
        return None

    def open(self, config: Config, *, anew: bool, keep_until: int = 0) -> None:
        """Make the folder ready: `anew` removes the files of an earlier run, and nothing else; plans of steps after
        `keep_until` go, too."""
        if anew:
            shutil.rmtree(self.last.parent, ignore_errors=True)
            results = ("metrics*.json", "metrics*.csv", "embeddings*.npz")
            made = [path for pattern in results for path in self.path.glob(pattern)]
            for path in (self.config, self.log, self.curves, self.plan, self.report, *made):
                path.unlink(missing_ok=True)
        for step, path in plan_files(self.plans).items():
            if step > keep_until:
                path.unlink(missing_ok=True)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            save_config(config, self.config)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}. Choose another --output.") from None

    def write_plans(self, step: int, plans: Mapping[str, np.ndarray]) -> None:
        """Keep the transport plans of the validation batch after `step` steps.

        plans: "text-video" to a plan (B, B) that sums to 1. The file holds B times that in float16, whose rows sum to 1
        (or to B over the number of clips there, where some lack a modality). Without plans, nothing is written.
        """
        if not plans:
            return
        scaled = {pair: (len(plan) * plan).astype(np.float16) for pair, plan in plans.items()}
        with durable_file(self.plans / f"step-{step:06d}.npz") as file:
            np.savez_compressed(file, **scaled)  # type: ignore[arg-type]

    def read_plans(self) -> dict[int, dict[str, np.ndarray]]:
        """Step to pair to float32 (B, B), B times the plan, in the order of the steps; no files, no steps.

        Raises:
            UserError: a file that `write_plans` did not leave so.
        """
        return {step: _plans_of(path) for step, path in plan_files(self.plans).items()}

    def _check_same(self, old: Config, new: Config) -> None:
        drawn_otherwise = "features" in (old.data.cache, new.data.cache)
        changed = {
            name: values
            for name, values in differences(old, new).items()
            if not (name in _FREE_ON_RESUME or name.startswith("evaluate."))
            or (name == "data.cache" and drawn_otherwise)
        }
        if changed:
            raise UserError(
                f"{self.path} cannot be resumed with other settings: {_listed(changed)}. "
                f"Resume it as it was with --config {self.config} --resume, or choose another --name."
            )

    def _how_it_differs(self, config: Config) -> str:
        try:
            changed = differences(load_config(self.config), config)
        except UserError:
            return ""
        return f" with other settings ({_listed(changed)})" if changed else " with these settings"


def plan_files(folder: Path) -> dict[int, Path]:
    """Step to file of the plans that lie in a folder, by step."""
    found = ((re.fullmatch(r"step-(\d+)\.npz", path.name), path) for path in folder.glob("step-*.npz"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _plans_of(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            plans = {pair: file[pair].astype(np.float32) for pair in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a whole file of plans ({error}): remove it.") from None
    for pair, plan in plans.items():
        if plan.ndim != 2 or plan.shape[0] != plan.shape[1] or not np.isfinite(plan).all():
            raise UserError(f"{path}: '{pair}' has the shape {plan.shape}; expected finite (B, B). Remove the file.")
    return plans


def _listed(changed: dict[str, tuple[Any, Any]]) -> str:
    shown = [f"{name} is {old} there and {new} here" for name, (old, new) in list(changed.items())[:3]]
    more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
    return "; ".join(shown) + more
