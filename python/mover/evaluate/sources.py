"""Where embeddings lie: in a file, or in the folder of a run that was evaluated."""

from __future__ import annotations

from pathlib import Path

from mover.errors import UserError
from mover.train.run_folder import RunFolder


def embeddings_path(source: Path) -> Path:
    """The file of embeddings that `source` names: itself, or that in the folder of a run.

    Raises:
        UserError: a folder without one.
    """
    if not source.is_dir():
        return source
    path = RunFolder(source).embeddings
    if not path.is_file():
        raise UserError(
            f"{source} holds no {path.name}: name a file of embeddings, or the folder of a run whose embeddings were "
            f"kept; mover evaluate --checkpoint {source / 'checkpoints' / 'best'} keeps them."
        )
    return path
