"""Runs that several experiments have in common are trained once."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mover.experiments import worker
from mover.experiments.definition import Definition, load_definition
from mover.experiments.plan import Run, plan_runs
from mover.experiments.record import state_of
from mover.experiments.results import gather
from mover.experiments.reuse import find_equal
from mover.experiments.runner import make_runs
from mover.experiments.tables import notes

from .conftest import EXPERIMENT

pytestmark = pytest.mark.usefixtures("in_process")
OTHER = EXPERIMENT.replace("plain: {}", "same: {label: Same}").replace("against: [plain]", "against: [same]") + (
    "evaluations: {val: {split: val}}\n"
)


@pytest.fixture
def both(write: Callable[..., Path]) -> tuple[Definition, Definition]:
    """The experiment `trial`, and `other`, which has one of its runs under another name and asks something else."""
    path = write(OTHER).rename("other.yaml")
    return load_definition(write()), load_definition(path)


def make(definition: Definition, **plan: Any) -> tuple[list[Run], str]:
    said = io.StringIO()
    runs = plan_runs(definition, **{"seeds": 1, **plan})
    sweep = make_runs(definition, runs, overwrite=True, console=Console(file=said, width=200))
    assert not sweep.failed, sweep.failed
    return runs, said.getvalue()


def record_of(run: Run) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(run.record.read_text())
    return record


def test_a_run_of_another_experiment_is_evaluated_and_not_trained_again(
    both: tuple[Definition, Definition], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, other = both
    (trained,), _ = make(trial, only=["plain"])
    source = record_of(trained)
    monkeypatch.setattr(worker, "_hardware", lambda *given: {"processor": "another", "threads": 1})
    (run,), said = make(other, only=["same"])
    record = record_of(run)
    assert "trained as trial/plain/seed-0)" in said
    assert run.folder.log.read_bytes() == trained.folder.log.read_bytes(), "which tells the time of every step"
    assert record["taken_from"] == "trial/plain/seed-0" and record["cell"] == "same"
    assert set(record["metrics"]) == {"val"} and set(source["metrics"]) == {"test"}
    for of_training in ("seconds", "resumed", "built_from", "hardware", "cost", "validation", "best", "matches"):
        assert record[of_training] == source[of_training], of_training
    assert not (run.config.folder / "metrics-test.json").exists() and state_of(run)[0] == "done"
    found = gather(other, [run], "tiny", {})
    assert "equal settings, and evaluated here: Same (trial/plain)." in notes(found)
    third = plan_runs(other, seeds=1, only=["same"], overrides={"output": "runs/experiments"})
    shutil.rmtree(Path("runs/experiments/trial"))
    run.config.folder.parent.rename("runs/experiments/other/moved")
    make(other, only=["same"])
    assert record_of(third[0])["taken_from"] == "trial/plain/seed-0", "where it was trained, not where it last lay"


def test_what_differs_starts_from_another_or_has_no_checkpoint_is_trained(
    both: tuple[Definition, Definition], define: Callable[..., Definition]
) -> None:
    trial, other = both
    made = make(trial, only=["plain"])[0][0]
    (same,) = plan_runs(other, seeds=1, only=["same"])
    assert find_equal(same) == made.config.folder
    assert find_equal(made) is None
    for plan in ({"first_seed": 1}, {"overrides": {"optimizer.lr": 0.5}}, {"overrides": {"output": "elsewhere"}}):
        assert find_equal(plan_runs(other, **{"seeds": 1, "only": ["same"], **plan})[0]) is None
    after = define(EXPERIMENT.replace("plain: {}", "plain: {start_from: volume}"))
    assert find_equal(plan_runs(after, seeds=1)[1]) is None
    made.record.write_text("{")
    assert find_equal(same) is None, "a damaged record of another experiment is none"
    (again,), _ = make(other, only=["same"])
    assert "taken_from" not in record_of(again)
    (again.folder.best / "model.safetensors").unlink()
    made.record.unlink()
    assert find_equal(plan_runs(trial, seeds=1, only=["plain"])[0]) is None


def test_a_run_that_replaces_one_that_was_taken_is_its_own(both: tuple[Definition, Definition]) -> None:
    trial, other = both
    make(trial, only=["plain"])
    (run,), _ = make(other, only=["same"])
    assert "taken_from" in record_of(run)
    (run,), _ = make(other, only=["same"], overrides={"train.steps": 4})
    assert "taken_from" not in record_of(run) and record_of(run)["settings"]["train"]["steps"] == 4


def test_a_taken_run_whose_evaluation_was_interrupted_goes_on(
    both: tuple[Definition, Definition], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, other = both
    (trained,), _ = make(trial, only=["plain"])
    with monkeypatch.context() as patched:
        patched.setattr(worker, "_evaluated", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(other, only=["same"])
    (run,) = plan_runs(other, seeds=1, only=["same"])
    assert state_of(run) == ("unfinished", "")
    make(other, only=["same"])
    assert run.folder.log.read_bytes() == trained.folder.log.read_bytes()
    assert record_of(run)["taken_from"] == "trial/plain/seed-0"
