"""Experiments as they are written: what is read, what is refused, and that the shipped ones make sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mover.errors import UserError
from mover.experiments.definition import Column, Definition, load_definition, shipped_experiments
from mover.experiments.plan import plan_runs

from .conftest import EXPERIMENT

Define = Callable[..., Definition]


@pytest.mark.parametrize("name", shipped_experiments())
def test_every_run_of_a_shipped_experiment_has_allowed_settings(name: str) -> None:
    definition = load_definition(name)
    runs = plan_runs(definition)
    folders = [run.config.folder for run in runs]
    assert len(set(folders)) == len(folders)
    assert len({run.name for run in runs}) == len(runs) == definition.seeds * len({run.cell for run in runs})
    assert {run.config.seed for run in runs} == set(range(definition.seeds))
    varied = [run.config.model_copy(update={"name": "x", "output": Path()}) for run in runs]
    assert len({config.model_dump_json() for config in varied}) == len(runs), "two variants are the same run"


def test_settings_are_those_of_the_file_then_the_variant_then_the_study_then_the_command_line(define: Define) -> None:
    text = EXPERIMENT.replace("variants:", "settings: {train.steps: 7, optimizer.lr: 0.5}\nvariants:") + (
        "study: {setting: train.batch_size, values: [4, 8]}\n"
    )
    text = text.replace("objective.volume_contrastive: 1.0}", "objective.volume_contrastive: 1.0, train.steps: 9}")
    runs = {run.name: run for run in plan_runs(define(text), overrides={"optimizer.lr": "0.25"})}
    assert list(runs)[:4] == ["plain-4 seed 0", "plain-8 seed 0", "volume-4 seed 0", "volume-8 seed 0"]
    plain, volume = runs["plain-8 seed 1"].config, runs["volume-4 seed 1"].config
    assert (plain.train.steps, volume.train.steps) == (7, 9)
    assert (plain.train.batch_size, volume.train.batch_size) == (8, 4)
    assert plain.optimizer.lr == volume.optimizer.lr == 0.25
    assert plain.seed == 1 and plain.folder == Path("runs/experiments/trial/plain-8/seed-1")
    some = plan_runs(define(text), seeds=1, first_seed=5, only=["volume-4"], overrides={"output": "there"})
    assert [str(run.config.folder) for run in some] == ["there/trial/volume-4/seed-5"]


def test_runs_that_others_start_from_come_first_and_come_along(define: Define) -> None:
    text = EXPERIMENT.replace("plain: {}", "plain: {start_from: before}").replace(
        "  volume:", "  before: {shown: false, settings: {train.steps: 2}}\n  volume:"
    )
    runs = plan_runs(define(text), seeds=2)
    assert [run.name for run in runs][:3] == ["before seed 0", "plain seed 0", "volume seed 0"]
    assert runs[4].start is runs[3] and runs[4].config.train.start_from == runs[3].config.folder
    assert [run.cell for run in plan_runs(define(text), seeds=1, only=["plain"])] == ["before", "plain"]


def test_columns(define: Define) -> None:
    text = EXPERIMENT.replace("[one2two, one2two+three R@5]", "[T2VA span, T2V R@10, 'b:T2V +dsl MdR', '*:joint']")
    text += "evaluations: {a: {}, b: {split: val}}\n"
    assert define(text).measured == [
        Column("a", "T2VA span", "R@1", "T2VA span R@1"), Column("a", "T2V", "R@10", "T2V R@10"),
        Column("b", "T2V +dsl", "MdR", "b T2V +dsl MdR"), Column("a", "joint", "R@1", "a joint R@1"),
        Column("b", "joint", "R@1", "b joint R@1"),
    ]  # fmt: skip
    own = text.replace("'*:joint'", "{row: step, metric: ms, evaluation: b}")
    assert define(own).measured[-1] == Column("b", "step", "ms", "step ms")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds: 2", "seeds: 0", "seeds: input should be greater than or equal to 1"),
        ("seeds: 2", "sedes: 2", "sedes: there is no such key"),
        ("title: Two objectives", "name: mine", "name: the file's name is that of the experiment"),
        ("title: Two objectives\n", "", "title: field required"),
        ("plain: {}", "plain: {start_from: nobody}", "variants.plain: 'nobody' is no other variant of plain, volume"),
        ("plain: {}", "plain: {values: [1]}", "there is no study"),
        ("plain: {}", "'a b': {}", "variants.a b"),
        ("against: [plain]", "against: [nobody]", "against: 'nobody' is no variant of plain, volume"),
        ("one2two,", "away:one2two,", "columns: 'away' is none of evaluations test"),
        ("one2two,", "{row: x},", "columns: expected row, metric, evaluation, label, got row"),
        ("seeds: 2", "prepare: {m.jsonl: [rm -r data]}", "expected a command of mover"),
        ("seeds: 2", "study: {setting: objective.volume_contrastive, values: [1]}", "is what the study varies"),
        ("title: Two objectives", "title: [", "not valid YAML"),
    ],
)
def test_what_is_not_an_experiment_is_refused(define: Define, old: str, new: str, said: str) -> None:
    with pytest.raises(UserError, match="trial.yaml") as raised:
        define(EXPERIMENT.replace(old, new))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"overrides": {"objective.volume_contrastive": 2}}, "is what trial varies (volume sets it)"),
        ({"overrides": {"name": "x"}}, "name cannot be set here"),
        ({"overrides": {"seed": 3}}, "give --first-seed"),
        ({"overrides": {"train.step": 3}}, "trial, plain: train.step: there is no such setting; did you mean"),
        ({"only": ["none"]}, "trial has no variant 'none': its variants are plain, volume"),
        ({"config": "nowhere"}, "no configuration 'nowhere'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(define: Define, plan: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as raised:
        plan_runs(define(), **plan)  # type: ignore[arg-type]
    assert said in str(raised.value)


def test_an_experiment_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"no experiment 'mine': expected .* shipped name \(.*mover-sets.*presets"):
        load_definition("mine")
