"""The checkpoints of a run beside each other: last, best and the earlier ones that are kept, step-000500."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from mover.train.checkpoint import copy_checkpoint
from mover.train.checkpoint_files import read_about


def keep_earlier(last: Path, count: int) -> None:
    """Before `last` is replaced: keep it as step-000500 beside it, so that with the one to come there are `count`
    checkpoints; older ones are removed. Its files are linked and take no more room.

    Raises:
        UserError: it cannot be written.
    """
    step = read_about(last).get("step")
    if step is not None and count > 1:
        copy_checkpoint(last, last.with_name(f"step-{step:06d}"))
    kept = _earlier(last.parent)
    for step in sorted(kept)[: max(0, len(kept) - (count - 1))]:
        shutil.rmtree(kept[step], ignore_errors=True)


def mend(last: Path, best: Path, keep_until: int) -> None:
    """Finish what a process that died was about to do: half-written folders go, a checkpoint between two renames gets
    its name back, `last` becomes `best` if it was to. Earlier ones beyond step `keep_until` go, too."""
    for path in last.parent.glob("*.new/"):
        shutil.rmtree(path, ignore_errors=True)
    for path in last.parent.glob("*.old/"):
        if path.with_suffix("").exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.rename(path, path.with_suffix(""))
    about = read_about(last)
    if about.get("best") and read_about(best).get("step") != about["step"]:
        copy_checkpoint(last, best)
    for step, path in _earlier(last.parent).items():
        if step > keep_until:
            shutil.rmtree(path, ignore_errors=True)


def _earlier(folder: Path) -> dict[int, Path]:
    """Step to folder of the earlier checkpoints that are kept."""
    found = ((re.fullmatch(r"step-(\d+)", path.name), path) for path in folder.glob("step-*/"))
    return {int(match[1]): path for match, path in found if match}
