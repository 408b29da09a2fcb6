"""What an experiment is: a YAML file that says which runs to make, what to measure, and what to compare.

`docs/experiments.md` explains every key with an example.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from mover.config import PositiveInt, Section
from mover.configs.loading import read_yaml
from mover.errors import UserError
from mover.evaluate.metrics import METRICS

_FOLDER = Path(__file__).parent / "definitions"
_NAME = r"^[A-Za-z0-9][\w.-]*$"
Name = Annotated[str, Field(pattern=_NAME)]
Settings = dict[str, Any]


def _mover_command(text: str) -> str:
    if not text.startswith("mover "):
        raise ValueError(f"'{text}': expected a command of mover, such as mover synth --out data/demo")
    return text


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[Name, ...], BeforeValidator(_listed)]
Given = str | dict[str, str]
ValueName = Annotated[int | float | str, Field(union_mode="left_to_right")]
"""Keys of YAML come as text; those that are numbers are numbers, and places on an axis."""
Command = Annotated[str, AfterValidator(_mover_command)]


@dataclass(frozen=True)
class Column:
    """A number of every run: of the evaluation of that name, in the row of its metrics, under the metric."""

    evaluation: str
    row: str
    metric: str
    label: str


class Evaluation(Section):
    """What the trained model is asked."""

    manifest: Path | None = Field(None, description="another manifest than the run's")
    split: str | None = Field(None, description="another split than the run's test split")
    missing: Literal["mask", "drop", "fail"] | None = Field(
        None, description="what becomes of clips without a modality; default: what the run says"
    )
    zero_shot: bool = Field(False, description="refuse to run where a training clip of the run is evaluated")
    command: Command | None = Field(
        None,
        description="a command of mover in place of `mover evaluate`; {run} stands for the folder of the run, {json} "
        "for the file in which the command leaves its numbers",
    )


class Variant(Section):
    """One way to train, and the settings that make it so."""

    label: str | None = Field(None, description="its name in tables; default: its key")
    settings: Settings = Field({}, description="dotted settings to values")
    start_from: Names = Field(
        (),
        description="variants whose trained weights this one begins with, of the same seed: of each modality, those of "
        "the first that has it",
    )
    against: tuple[str, ...] | None = Field(
        None, description="variants that it is compared with, seed by seed; default: the experiment's `against`"
    )
    values: tuple[Any, ...] | None = Field(
        None, min_length=1, description="of the study, in place of all; by their names, where they have names"
    )
    shown: bool = Field(True, description="false: it is only there for others to start from")


class Study(Section):
    """A setting that every variant takes several values of."""

    setting: str = Field(description="dotted name of the setting")
    label: str | None = Field(None, description="what it is called in tables and figures; default: its dotted name")
    values: tuple[Any, ...] | dict[ValueName, Any] = Field(
        min_length=1, description="what it is set to, in the order of the tables; or their names to these"
    )
    log: bool = Field(False, description="whether the axis of the figure is logarithmic")
    log_numbers: bool = Field(False, description="whether that of the numbers is, too")


class Definition(Section):
    """An experiment.

    In `prepare`, settings and manifests of evaluations, {manifest} stands for the manifest of the configuration and
    {folder} for the folder in which it lies, so that an experiment goes with another configuration (`filled`).
    """

    name: Name = Field(description="that of the file")
    title: str = Field(min_length=1, description="one line")
    asks: str = Field(min_length=1, description="the question, and how the runs answer it")
    config: str = Field(description="configuration that every run begins with: a shipped name or the path of a file")
    prepare: dict[str, tuple[Command, ...]] = Field(
        {}, description="manifest to the commands that make it and leave it as it is where it is there"
    )
    seeds: PositiveInt = Field(3, description="runs of each variant: seed, seed + 1, …")
    settings: Settings = Field({}, description="dotted settings of all runs")
    study: Study | None = None
    variants: dict[Name, Variant] = Field(min_length=1)
    evaluations: dict[Name, Evaluation] = Field({"test": Evaluation()}, min_length=1)
    columns: tuple[Given, ...] | dict[str, tuple[Given, ...]] = Field(
        min_length=1,
        description="of the tables: 'T2V', 'T2V R@5', 'EVALUATION:T2V', '*:T2V' for every evaluation; the row may be "
        "joint, the direction that compares one modality with all others (joint span, joint cosine: by that score), or "
        "pairs, the mean of those between two; or a mapping of row, metric, evaluation, label, where the row may be "
        "cost, what the run took, and the metric a path, zero_shot/seen/R@1. Several tables: a mapping of their titles "
        "to their columns",
    )
    against: tuple[str, ...] = Field((), description="variants that all others are compared with, seed by seed")
    notes: tuple[str, ...] = Field((), description="sentences that stand below the tables")

    @model_validator(mode="after")
    def _check(self) -> Definition:
        for name, variant in self.variants.items():
            for other in (*(variant.against or ()), *variant.start_from):
                if other not in self.variants or other == name:
                    raise ValueError(f"variants.{name}: '{other}' is no other variant of {', '.join(self.variants)}")
        for name in self.variants:
            if name in self.before(name):
                raise ValueError(f"variants.{name}: it starts, in the end, from itself")
        for other in self.against:
            if other not in self.variants:
                raise ValueError(f"against: '{other}' is no variant of {', '.join(self.variants)}")
        for column in self.measured:
            if column.evaluation not in self.evaluations:
                raise ValueError(f"columns: '{column.evaluation}' is none of evaluations {', '.join(self.evaluations)}")
        if self.study is None and any(variant.values for variant in self.variants.values()):
            raise ValueError("values: there is no study whose values these could be")
        if self.study is not None:
            named = self.study.values if isinstance(self.study.values, dict) else None
            for name, variant in self.variants.items():
                unknown = [value for value in variant.values or () if named is not None and value not in named]
                if unknown:
                    raise ValueError(f"variants.{name}: {unknown[0]} is none of the study's values {list(named or ())}")
            both = [name for name, v in self.variants.items() if self.study.setting in v.settings]
            if both:
                raise ValueError(f"variants.{both[0]}: {self.study.setting} is what the study varies; take it out")
        return self

    def filled(self, manifest: Path) -> Definition:
        """The experiment with `manifest` in place of {manifest}, and its folder in place of {folder}."""
        places = {"{manifest}": str(manifest), "{folder}": str(manifest.parent)}

        def fill(value: Any) -> Any:
            if isinstance(value, str):
                for name, text in places.items():
                    value = value.replace(name, text)
                return value
            if isinstance(value, dict):
                return {fill(key): fill(entry) for key, entry in value.items()}
            return [fill(entry) for entry in value] if isinstance(value, list | tuple) else value

        tree = self.model_dump()
        filled = {key: fill(tree[key]) for key in ("prepare", "settings", "variants")}
        evaluations = {
            name: {
                **given,
                "manifest": given["manifest"] and fill(str(given["manifest"])),
                "command": fill(given["command"]),
            }
            for name, given in tree["evaluations"].items()
        }
        return Definition.model_validate({**tree, **filled, "evaluations": evaluations})

    @property
    def measured(self) -> list[Column]:
        """The columns of all tables."""
        return [column for columns in self.tables.values() for column in columns]

    @property
    def tables(self) -> dict[str, list[Column]]:
        """The columns of each table by its title, which is empty where there is one table."""
        tables = self.columns if isinstance(self.columns, dict) else {"": self.columns}
        return {title: [column for one in given for column in self._columns(one)] for title, given in tables.items()}

    @property
    def shown(self) -> list[str]:
        """The variants of the tables."""
        return [name for name, variant in self.variants.items() if variant.shown]

    def before(self, name: str) -> set[str]:
        """The variants that a variant starts from, and those that these start from."""
        found: set[str] = set()
        left = [*self.variants[name].start_from]
        while left:
            other = left.pop()
            left += [] if other in found else self.variants[other].start_from
            found.add(other)
        return found

    def compared_with(self, name: str) -> tuple[str, ...]:
        """The variants that a variant is compared with."""
        own = self.variants[name].against
        return tuple(other for other in (self.against if own is None else own) if other != name)

    def _columns(self, given: Given) -> list[Column]:
        first = next(iter(self.evaluations))
        if isinstance(given, dict):
            unknown = set(given) - {"row", "metric", "evaluation", "label"}
            if unknown or not {"row", "metric"} <= set(given):
                raise ValueError(f"columns: expected row, metric, evaluation, label, got {', '.join(given)}")
            label = given.get("label", f"{given['row']} {given['metric']}")
            return [Column(given.get("evaluation", first), given["row"], given["metric"], label)]
        match = re.fullmatch(rf"(?:(\*|[\w.-]+):)?(.+?)(?: ({'|'.join(map(re.escape, METRICS))}))?", given)
        if match is None:
            raise ValueError(f"columns: '{given}' is not of the form EVALUATION:ROW METRIC")
        of, row, metric = match[1], match[2], match[3] or "R@1"
        evaluations = self.evaluations if of == "*" else [of or first]
        return [Column(name, row, metric, f"{f'{name} ' if of else ''}{row} {metric}") for name in evaluations]


def shipped_experiments() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_definition(source: str | Path) -> Definition:
    """The experiment of a shipped name, or of a YAML file.

    Raises:
        UserError: there is none, it is not YAML, or a key of it is unknown, absent or of a wrong value.
    """
    text = str(source)
    path = _FOLDER / f"{text}.yaml" if text in shipped_experiments() else Path(text)
    if not path.is_file():
        known = ", ".join(shipped_experiments())
        raise UserError(f"no experiment '{text}': expected the path of a YAML file or a shipped name ({known}).")
    if not re.fullmatch(_NAME, path.stem):
        raise UserError(f"{path}: the name of the file is that of the experiment: use letters, digits, _, . and -.")
    tree = read_yaml(path)
    if "name" in tree:
        raise UserError(f"{path}: name: the file's name is that of the experiment; take the key out.")
    try:
        return Definition.model_validate({**tree, "name": path.stem})
    except ValidationError as error:
        raise UserError(" ".join(f"{path}: {_sentence(p)}" for p in error.errors(include_url=False))) from None


def _sentence(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{where}: there is no such key."
    said = (
        problem["ctx"]["error"] if problem["type"] == "value_error" else problem["msg"][:1].lower() + problem["msg"][1:]
    )
    return f"{where}: {said}." if where else f"{said}."
