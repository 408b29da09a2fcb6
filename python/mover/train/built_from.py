"""Which code a result comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

import mover


def built_from() -> dict[str, str | None]:
    """{"version", "commit", "torch"}; the commit, with "-dirty" where files differ from it, or None.

    Only the checkout that this package is run from is asked for its commit, never a repository it merely lies in.
    """
    package = Path(mover.__file__).resolve().parent
    root = package.parents[1]
    commit = None
    if package == root / "python" / "mover" and (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--match="]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):  # no git, or a file system that hardly answers
            return {"version": mover.__version__, "commit": None, "torch": torch.__version__}
        commit = done.stdout.strip() or None if done.returncode == 0 else None
    return {"version": mover.__version__, "commit": commit, "torch": torch.__version__}
