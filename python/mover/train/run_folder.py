"""The folder of a run: who may write to it, and what lies where."""

from __future__ import annotations

import errno
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mover.config import Config
from mover.configs import differences, load_config, save_config
from mover.data.tokenizer import Tokenizer
from mover.distributed.shards import Shards
from mover.distributed.world import World
from mover.durable_file import durable_file, flush
from mover.errors import UserError
from mover.models.model import MoverModel
from mover.train.checkpoint import copy_checkpoint, find_checkpoint, load_checkpoint_config, save_checkpoint
from mover.train.checkpoint_files import other_version
from mover.train.checkpoint_history import keep_earlier, mend
from mover.train.lock import check_free, locked

_FREE_ON_RESUME = (
    "name", "output", "data.manifest", "data.tokenizer", "data.cache", "data.cache_folder", "data.workers",
    "train.steps", "train.validate_every", "train.checkpoint_every", "train.log_every", "train.diagnose_every",
    "train.device", "train.threads",
)  # fmt: skip
"""Settings that a resumed run may change, beside those of evaluation: none of them changes what a step computes, but
for `train.steps`, which moves the end of the schedules. But `data.cache` features may neither come nor go: with it
nothing is drawn at random from frames and sound."""

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)


class RunFolder:
    """`<output>/<name>`: config.yaml, log.jsonl, checkpoints/{last,best,step-000100}, plans/step-000100.npz,
    metrics.json, embeddings.npz, curves.png, plan.png, report.html; and lock.json while a run writes there."""

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
            UserError: a process trains there, a run is there and neither flag says what to do, there is nothing to
                resume, or the checkpoint belongs to other settings.
        """
        check_free(self.path)
        return self._admit(config, resume, overwrite)

    @contextmanager
    def hold(self, config: Config, *, resume: bool, overwrite: bool, say: Callable[[str], None]) -> Iterator[None]:
        """Keep other runs out of the folder for the life of the block, in which a run that was admitted writes there.

        Args:
            config, resume, overwrite: as in `admit`, which is done again: what it saw may have changed meanwhile.
            say: takes warnings: no locks on this file system, a checkpoint of another version.

        Raises:
            UserError: as `admit`; or the folder cannot be written any more, within the block, too.
        """
        with locked(self.path, say):
            checkpoint = self._admit(config, resume, overwrite)
            other = None if checkpoint is None else other_version(checkpoint)
            if other is not None:
                say(f"{other} What follows may differ from what would have followed there.")
            try:
                yield
            except OSError as error:
                if not self.path.is_dir():
                    raise self._gone() from None
                elsewhere = error.filename is not None and not Path(error.filename).is_relative_to(self.path)
                if elsewhere or error.errno not in _UNWRITABLE:
                    raise
                raise UserError(
                    f"{error.filename or self.path} cannot be written: {error.strerror}. Make room, or make the folder "
                    "writable, and go on with --resume."
                ) from None

    def _gone(self) -> UserError:
        return UserError(
            f"{self.path} is gone: it was removed or moved while the run was writing to it. Start the run again; if it "
            "was moved, go on with --resume and the --output and --name of the new place."
        )

    def _admit(self, config: Config, resume: bool, overwrite: bool) -> Path | None:
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
        """Make the folder ready: `anew` removes the files of an earlier run, and nothing else. Plans and checkpoints of
        steps after `keep_until` go, too, and what a run that was killed left half done is put right."""
        if anew:
            shutil.rmtree(self.last.parent, ignore_errors=True)
            results = ("metrics*.json", "metrics*.csv", "embeddings*.npz")
            made = [path for pattern in results for path in self.path.glob(pattern)]
            for path in (self.config, self.log, self.curves, self.plan, self.report, *made):
                path.unlink(missing_ok=True)
        for step, path in plan_files(self.plans).items():
            if step > keep_until:
                path.unlink(missing_ok=True)
        for path in self.plans.glob(".step-*.part"):
            path.unlink(missing_ok=True)
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            mend(self.last, self.best, keep_until)
            save_config(config, self.config)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}. Choose another --output.") from None

    def save(
        self,
        *,
        model: MoverModel,
        objective: nn.Module,
        state: dict[str, Any],
        config: Config,
        tokenizer: Tokenizer | None,
        best: bool,
        world: World | None = None,
        shards: Shards | None = None,
    ) -> None:
        """Write checkpoints/last, which with `best` becomes checkpoints/best, too. Those before stay as
        checkpoints/step-000500, as many as `train.keep_checkpoints` says. The rest is as in `save_checkpoint`.

        Raises UserError: they cannot be written. Those there are as they were.
        """
        world = world or World()
        if world.leads:
            if not self.last.parent.is_dir():
                raise self._gone()
            if self.log.exists():
                flush(self.log)  # it is to be as far as the checkpoint
            keep_earlier(self.last, config.train.keep_checkpoints)
        save_checkpoint(
            self.last, model=model, objective=objective, state=state, config=config, tokenizer=tokenizer, best=best,
            world=world, shards=shards,
        )  # fmt: skip
        if best and world.leads:
            copy_checkpoint(self.last, self.best)

    def write_plans(self, step: int, plans: Mapping[str, np.ndarray]) -> None:
        """Keep the transport plans of the validation batch after `step` steps.

        plans: "text-video" to a plan (B, B) that sums to 1. The file holds B times that in float16, whose rows sum to 1
        (or to B over the number of clips there, where some lack a modality). Without plans, nothing is written.
        """
        if not plans:
            return
        if not self.path.is_dir():
            raise self._gone()
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
