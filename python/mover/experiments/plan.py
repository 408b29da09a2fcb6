"""The runs of an experiment: one for each variant, value of its study and seed, with all settings of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mover.config import Config
from mover.configs import load_config, setting_text
from mover.errors import UserError
from mover.experiments.definition import Definition, Evaluation
from mover.train.run_folder import RunFolder

OUTPUT = Path("runs/experiments")
"""Where results go, unless the setting `output` says otherwise."""
MANIFEST = "data.manifest"
_OWN = {
    "name": "runs are named by the experiment",
    "seed": "give --first-seed",
}


@dataclass(frozen=True)
class Run:
    """One run.

    cell: its row of the tables: the variant and, in a study, the value, `transport-0.25`. value: that value, else None.
    starts: the runs whose trained weights it begins with.
    """

    cell: str
    variant: str
    value: Any
    seed: int
    config: Config
    evaluations: Mapping[str, Evaluation]
    starts: tuple[Run, ...] = ()

    @property
    def name(self) -> str:
        """`transport-0.25 seed 1`."""
        return f"{self.cell} seed {self.seed}"

    @property
    def folder(self) -> RunFolder:
        """`<output>/<experiment>/<cell>/seed-N`."""
        return RunFolder(self.config.folder)

    @property
    def record(self) -> Path:
        """The file that is there when the run is complete."""
        return self.config.folder / "result.json"

    @property
    def output(self) -> Path:
        """What the run said."""
        return self.config.folder / "output.txt"


@dataclass(frozen=True)
class Cell:
    """A row of the tables: a variant with one value of the study, which may go by a name (`value`)."""

    name: str
    variant: str
    value: Any
    label: str
    setting: Any = None


def cells_of(definition: Definition) -> list[Cell]:
    """The rows of the tables, in order; variants that are not shown included."""
    study = definition.study
    found = []
    for name, variant in definition.variants.items():
        label = variant.label or name
        if study is None:
            found.append(Cell(name, name, None, label))
            continue
        named = study.values if isinstance(study.values, dict) else {}
        for value in variant.values or study.values:
            text = setting_text(value)
            shown = f"{label}, {study.label or study.setting} {text}"
            found.append(Cell(f"{name}-{text}", name, value, shown, named.get(value, value)))
    return found


def filled(definition: Definition, config: str | None, overrides: Mapping[str, Any]) -> Definition:
    """The experiment for the manifest that a configuration, the definition's by default, and the command line name."""
    given = {name: value for name, value in overrides.items() if name == MANIFEST}
    return definition.filled(load_config(config or definition.config, given).data.manifest)


def plan_runs(
    definition: Definition,
    *,
    config: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    first_seed: int = 0,
    only: Sequence[str] = (),
) -> list[Run]:
    """Every run of an experiment, first all variants of the first seed; after those that it starts from.

    Args:
        definition: the experiment, as `filled` gives it.
        config: in place of the definition's.
        overrides: dotted settings on top of all runs.
        seeds, first_seed: how many runs of each variant, and the seed of the first; default: the definition's, 0.
        only: variants or cells; runs that these start from come along. Empty: all.

    Raises:
        UserError: a setting that the experiment sets itself, a variant that does not exist, or a run whose settings
            are not allowed, with the run's name.
    """
    given = dict(overrides or {})
    _check_overrides(definition, given)
    folder = Path(str(given.pop("output", OUTPUT))) / definition.name
    wanted = _wanted(definition, only)
    runs: dict[tuple[str, Any, int], Run] = {}
    for seed in range(first_seed, first_seed + (seeds or definition.seeds)):
        ordered = sorted(cells_of(definition), key=lambda cell: len(definition.before(cell.variant)))  # is stable
        for cell in ordered:
            if cell.name not in wanted:
                continue
            sources = definition.variants[cell.variant].start_from
            absent = [name for name in sources if (name, cell.value, seed) not in runs]
            if absent:
                raise UserError(f"{definition.name}, {cell.name}: '{absent[0]}' has no run with the same value.")
            starts = tuple(runs[name, cell.value, seed] for name in sources)
            settings = _settings(definition, cell, given, starts)
            settings |= {"output": folder / cell.name, "name": f"seed-{seed}", "seed": seed}
            try:
                resolved = load_config(config or definition.config, settings)
            except UserError as error:
                raise UserError(f"{definition.name}, {cell.name}: {error}") from None
            run = Run(cell.name, cell.variant, cell.value, seed, resolved, definition.evaluations, starts)
            runs[cell.variant, cell.value, seed] = run
    folders = {run.config.data.manifest.parent for run in runs.values()}
    if MANIFEST in given and Path(str(given[MANIFEST])).parent not in folders:
        raise UserError(f"{MANIFEST}: {definition.name} has manifests of its own; write an experiment of your own.")
    return list(runs.values())


def _settings(definition: Definition, cell: Cell, given: Mapping[str, Any], starts: Sequence[Run]) -> dict[str, Any]:
    own = {name: value for name, value in given.items() if name == MANIFEST}  # an experiment may set another
    settings = {**own, **definition.settings, **definition.variants[cell.variant].settings}
    if definition.study is not None:
        settings[definition.study.setting] = cell.setting
    if starts:
        settings["train.start_from"] = [start.config.folder for start in starts]
    return {**settings, **{name: value for name, value in given.items() if name != MANIFEST}}


def _check_overrides(definition: Definition, given: Mapping[str, Any]) -> None:
    varied = {name: key for key, variant in definition.variants.items() for name in variant.settings}
    if definition.study is not None:
        varied[definition.study.setting] = "the study"
    for name in given:
        if name in _OWN:
            raise UserError(f"{name} cannot be set here: {_OWN[name]}.")
        if name in varied and name != MANIFEST:
            raise UserError(
                f"{name} is what {definition.name} varies ({varied[name]} sets it): take it from the command line, or "
                "write an experiment of your own."
            )


def _wanted(definition: Definition, only: Sequence[str]) -> set[str]:
    """The names of the cells to run."""
    cells = cells_of(definition)
    unknown = [name for name in only if name not in definition.variants and name not in {c.name for c in cells}]
    if unknown:
        raise UserError(f"{definition.name} has no variant '{unknown[0]}': its variants are {_listed(definition)}.")
    chosen = [cell for cell in cells if not only or cell.variant in only or cell.name in only]
    before = {(name, cell.value) for cell in chosen for name in definition.before(cell.variant)}
    return {cell.name for cell in cells if cell in chosen or (cell.variant, cell.value) in before}


def _listed(definition: Definition) -> str:
    return ", ".join(definition.variants)
