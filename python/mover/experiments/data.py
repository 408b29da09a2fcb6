"""The data of an experiment: made by its own commands, and checked where a result is to be zero-shot."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mover.data.manifest import read_manifest, select_split
from mover.data.overlap import find_overlap
from mover.errors import UserError
from mover.experiments.definition import Definition
from mover.experiments.plan import Run


def prepare(definition: Definition, runs: Sequence[Run], say: Callable[[str], None]) -> None:
    """Run the commands that make the manifests that these runs read; with other manifests, none.

    Raises:
        UserError: a command failed.
    """
    for manifest, commands in needed(definition, runs).items():
        for command in commands:
            say(f"$ {command}")
            words = shlex.split(command)[1:]
            code = subprocess.run([sys.executable, "-m", "mover", *words]).returncode
            if code == -2 or code >= 128:
                raise KeyboardInterrupt
            if code:
                raise UserError(f"{command}: ended with exit code {code}, see above; {manifest} is needed.")


def needed(definition: Definition, runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """Of `definition.prepare` what makes the manifests that these runs read, and those that such a manifest is made
    from, in the order of the definition."""
    read = {run.config.data.manifest for run in runs}
    read |= {e.manifest for e in definition.evaluations.values() if e.manifest is not None}
    chosen = {}
    for manifest, commands in reversed(definition.prepare.items()):
        if Path(manifest) in read:
            chosen[manifest] = commands
            read |= {Path(word) for command in commands for word in shlex.split(command)}
    return dict(reversed(chosen.items()))


def check_zero_shot(definition: Definition, runs: Sequence[Run]) -> None:
    """Refuse an evaluation that is to be zero-shot on clips, or uploads, that a run trains on.

    Raises:
        UserError: with the first clip that is shared.
    """
    seen = set()
    for run in runs:
        for name, evaluation in definition.evaluations.items():
            data = run.config.data
            evaluated = evaluation.manifest or data.manifest
            split = evaluation.split or data.test_split
            pair = (data.manifest, data.train_split, evaluated, split)
            if not evaluation.zero_shot or pair in seen:
                continue
            seen.add(pair)
            trained = select_split(read_manifest(data.manifest), data.train_split)
            asked = select_split(read_manifest(evaluated), split)
            shared = find_overlap(trained, asked).uploads
            if shared:
                raise UserError(
                    f"{definition.name}: evaluation '{name}' is to be zero-shot, but {len(shared)} of {len(asked)} "
                    f"clips of {evaluated} ({split}) are trained on, in {data.manifest} ({data.train_split}), first "
                    f"'{shared[0]}'. Evaluate other clips, or take them out of the training split."
                )
