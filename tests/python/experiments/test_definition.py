"""Experiments as they are written: what is read, what is refused, and that the shipped ones make sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mover.errors import UserError
from mover.experiments.data import needed
from mover.experiments.definition import Column, Definition, load_definition, shipped_experiments
from mover.experiments.docs import check_page
from mover.experiments.plan import filled, plan_runs

from .conftest import EXPERIMENT

Define = Callable[..., Definition]


@pytest.mark.parametrize("name", shipped_experiments())
def test_every_run_of_a_shipped_experiment_has_allowed_settings(name: str) -> None:
    definition = filled(load_definition(name), None, {})
    runs = plan_runs(definition)
    folders = [run.config.folder for run in runs]
    assert len(set(folders)) == len(folders)
    assert len({run.name for run in runs}) == len(runs) == definition.seeds * len({run.cell for run in runs})
    assert {run.config.seed for run in runs} == set(range(definition.seeds))
    varied = [run.config.model_copy(update={"name": "x", "output": Path()}) for run in runs]
    assert len({config.model_dump_json() for config in varied}) == len(runs), "two variants are the same run"


def test_the_documentation_has_a_place_for_every_experiment_and_an_example_that_loads(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "experiments.md"
    for name in set(shipped_experiments()) - {"zero-shot-public"}:
        assert f"mover experiment {name}\n" in check_page(page, name)
    example = page.read_text().split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "my.yaml"
    path.write_text(example)
    assert len(plan_runs(filled(load_definition(path), None, {}))) == 2 * 3 * 3


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
    assert [run.name for run in runs][:3] == ["before seed 0", "volume seed 0", "plain seed 0"]
    assert runs[5].starts == (runs[3],) and runs[5].config.train.start_from == (runs[3].config.folder,)
    assert [run.cell for run in plan_runs(define(text), seeds=1, only=["plain"])] == ["before", "plain"]
    chain = text.replace("volume: {label: with volume,", "volume: {start_from: [plain, before],")
    last = plan_runs(define(chain), seeds=1, only=["volume"])
    assert [run.cell for run in last] == ["before", "plain", "volume"] and last[2].starts == (last[1], last[0])


def test_an_experiment_goes_with_the_manifest_of_another_configuration(define: Define) -> None:
    text = EXPERIMENT.replace("plain: {}", "plain: {settings: {data.manifest: '{folder}/noisy.jsonl'}}") + (
        "prepare:\n"
        "  data/demo/manifest.jsonl: [mover synth --out data/demo]\n"
        "  '{folder}/noisy.jsonl': ['mover derive {manifest} --mismatched 0.4 --out {folder}/noisy.jsonl']\n"
        "evaluations: {a: {manifest: '{folder}/away.jsonl'}, b: {}}\n"
    )
    demo = filled(define(text), "demo", {})
    made = needed(demo, plan_runs(demo, config="demo", only=["plain"]))
    assert list(made) == ["data/demo/manifest.jsonl", "data/demo/noisy.jsonl"]
    assert made["data/demo/noisy.jsonl"] == (
        "mover derive data/demo/manifest.jsonl --mismatched 0.4 --out data/demo/noisy.jsonl",
    )
    assert demo.evaluations["a"].manifest == Path("data/demo/away.jsonl") and demo.evaluations["b"].manifest is None
    own = filled(define(text), None, {"data.manifest": "mine/m.jsonl"})
    runs = plan_runs(own, only=["plain"])
    assert {str(run.config.data.manifest) for run in runs} == {"mine/noisy.jsonl"}
    assert list(needed(own, runs)) == ["mine/noisy.jsonl"]
    assert not needed(own, plan_runs(own, only=["volume"], overrides={"data.manifest": "mine/m.jsonl"}))


def test_values_of_a_study_may_have_names(define: Define) -> None:
    text = EXPERIMENT + "study: {setting: data.manifest, values: {10: data/a.jsonl, 20: data/b.jsonl}}\n"
    runs = plan_runs(define(text.replace("plain: {}", "plain: {values: [20]}")), seeds=1)
    assert [(run.cell, run.value, str(run.config.data.manifest)) for run in runs] == [
        ("plain-20", 20, "data/b.jsonl"), ("volume-10", 10, "data/a.jsonl"), ("volume-20", 20, "data/b.jsonl")
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"variants.plain: 30 is none of the study's values \[10, 20\]"):
        define(text.replace("plain: {}", "plain: {values: [30]}"))
    with pytest.raises(UserError, match="data.manifest: trial has manifests of its own"):
        plan_runs(define(text), overrides={"data.manifest": "other/m.jsonl"})


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
        (
            "plain: {}",
            "plain: {start_from: b}\n  b: {start_from: plain}",
            "variants.plain: it starts, in the end, from",
        ),
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
