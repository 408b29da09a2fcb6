"""Tables, differences and figures of records whose numbers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mover.errors import UserError
from mover.experiments.axes import readable
from mover.experiments.definition import Column, Definition
from mover.experiments.docs import check_page, write_docs
from mover.experiments.figures import draw_figures
from mover.experiments.plan import Run, plan_runs
from mover.experiments.record import asked, number_of, state_of, write_record
from mover.experiments.results import gather, paired, summary
from mover.experiments.tables import difference_table, markdown, mean_table

from .conftest import EXPERIMENT

Define = Callable[..., Definition]
RECALL = {"plain": (60.0, 63.0), "volume": (64.0, 65.0)}


def rows(recall: float) -> dict[str, Any]:
    return {
        "one2two": {"R@1": recall, "R@5": recall + 10}, "two2one": {"R@1": recall - 10, "R@5": recall},
        "one2two+three": {"R@1": recall + 20, "R@5": recall + 30, "gain": 20.0},
        "two+three2one": {"R@1": recall + 18, "R@5": recall + 28, "gain": 18.0},
        "one2two+three span": {"R@1": recall + 15, "R@5": recall + 16, "gain": 15.0},
    }  # fmt: skip


def leave(run: Run, recall: float, commit: str = "abc") -> None:
    """The record that a run would leave."""
    record = {
        "settings": run.config.model_dump(mode="json"), "asked": asked(run), "metrics": {"test": rows(recall)},
        "validation": [[step, {"one2two": recall, "one2two+three": step, "two+three2one": 1.0}] for step in (3, 6)],
        "built_from": {"version": "1", "commit": commit, "torch": "2"}, "hardware": {"processor": "P", "threads": 1},
        "cost": {}, "seconds": 1.0, "best": None, "resumed": False,
    }  # fmt: skip
    write_record(run.record, record)


@pytest.fixture
def found(define: Define) -> dict[str, Any]:
    definition = define()
    runs = plan_runs(definition)
    for run in runs:
        leave(run, RECALL[run.variant][run.seed], "abc" if run.seed else "def")
    return gather(definition, runs, "tiny", {"train.steps": 6})


def test_tables_by_hand(found: dict[str, Any]) -> None:
    lines = mean_table(found, found["columns"]).splitlines()
    assert lines[0] == "|  | one2two R@1 | one2two+three R@5 | seeds |"
    assert lines[2] == "| plain | 61.5 ± 2.1 | 91.5 ± 2.1 | 2 |"  # (60, 63): deviation 3 / √2
    assert lines[3] == "| with volume | 64.5 ± 0.7 | 94.5 ± 0.7 | 2 |"
    assert difference_table(found, found["columns"]).splitlines()[2:] == [
        "| with volume − plain | +3.0 ± 1.4 (2 of 2) | +3.0 ± 1.4 (2 of 2) |"  # +4, +2
    ]
    page = markdown(found, {"bars.png": "bars"})
    assert "over the seeds (0, 1)" in page and "`mover experiment trial train.steps=6`" in page
    assert "commit: def (2 runs), abc (2 runs)" in page and "processor: P" in page and "![bars](bars.png)" in page


def test_summary_and_pairs() -> None:
    assert summary({"0": 1.0, "1": 2.0, "2": 6.0}) == {
        "mean": 3.0, "deviation": round(7**0.5, 4), "n": 3, "values": {"0": 1.0, "1": 2.0, "2": 6.0}
    }  # fmt: skip
    assert summary({"4": 5.0})["deviation"] is None and summary({})["mean"] is None
    assert paired({"0": 5.0, "1": 7.0, "3": 1.0}, {"1": 9.0, "0": 4.0, "2": 0.0}) == {"0": 1.0, "1": -2.0}


def test_joint_and_pairs_are_found_whatever_the_modalities_are_called() -> None:
    record: dict[str, Any] = {"metrics": {"test": rows(50.0)}}
    assert number_of(record, Column("test", "joint", "R@1", "")) == 70.0
    assert number_of(record, Column("test", "joint span", "R@1", "")) == 65.0
    assert number_of(record, Column("test", "joint cosine", "R@1", "")) is None
    assert number_of(record, Column("test", "pairs", "R@1", "")) == 45.0
    assert number_of(record, Column("test", "one2two+three span", "R@5", "")) == 66.0
    record["cost"] = {"ms a step": 2.5}
    assert number_of(record, Column("test", "cost", "ms a step", "")) == 2.5
    assert number_of(record, Column("test", "one2four", "R@1", "")) is None
    assert number_of(record, Column("away", "pairs", "R@1", "")) is None


def test_directions_between_numbered_modalities_can_be_read() -> None:
    directions = ("view12view2", "view22view1+view3", "T2VA", "text2still", "one2two+three")
    assert [*map(readable, directions)] == ["view1 → view2", "view2 → view1+view3", *directions[2:]]


def test_numbers_of_commands_are_found_by_paths() -> None:
    record = {
        "metrics": {"classes": {"inputs": {"video": {"probe": {"accuracy": 12.5}, "nearest_text": None}}, "n": 3}}
    }
    assert number_of(record, Column("classes", "inputs", "video/probe/accuracy", "")) == 12.5
    assert number_of(record, Column("classes", "inputs", "video/nearest_text/accuracy", "")) is None
    assert number_of(record, Column("classes", "n", "anything", "")) is None


def test_several_tables(define: Define) -> None:
    text = EXPERIMENT.replace("[one2two, one2two+three R@5]", "{first: [one2two], second: [joint, pairs]}")
    definition = define(text)
    runs = plan_runs(definition, seeds=1)
    for run in runs:
        leave(run, RECALL[run.variant][0])
    lines = markdown(gather(definition, runs, "tiny", {})).splitlines()
    assert lines[0] == "**first**" and lines[2] == "|  | one2two R@1 | seeds |"
    at = lines.index("**second**")
    assert lines[at + 2 : at + 6 : 2] == ["|  | joint R@1 | pairs R@1 | seeds |", "| plain | 80.0 | 55.0 | 1 |"]


def test_a_record_of_before_an_option_of_evaluation_still_counts(define: Define) -> None:
    run = plan_runs(define())[0]
    leave(run, 50.0)
    record = json.loads(run.record.read_text())
    del record["asked"]["test"]["missing"]
    write_record(run.record, record)
    assert state_of(run)[0] == "done"
    record["asked"]["test"]["missing"] = "mask"
    write_record(run.record, record)
    assert state_of(run)[0] == "unfinished"


def test_what_is_not_complete_or_has_other_settings_is_not_counted(define: Define) -> None:
    definition = define()
    runs = plan_runs(definition)
    leave(runs[0], 50.0)
    leave(runs[1], 70.0)
    leave(plan_runs(definition, overrides={"train.steps": 5})[2], 90.0)
    found = gather(definition, runs, "tiny", {})
    assert found["absent"] == ["plain seed 1", "volume seed 1"]
    assert found["means"]["plain"]["one2two R@1"]["values"] == {"0": 50.0}
    assert "| plain | 50.0 | 80.0 | 1 |" in mean_table(found, found["columns"])
    assert "| with volume − plain | +20.0 (1 of 1) | +20.0 (1 of 1) |" in difference_table(found, found["columns"])
    assert "Not complete, and not in the tables: plain seed 1, volume seed 1." in markdown(found)
    empty = gather(definition, plan_runs(definition, overrides={"output": "nowhere"}), "tiny", {})
    assert "| plain | – | – | 0 |" in mean_table(empty, empty["columns"]) and draw_figures(empty, Path("nowhere")) == {}


def test_a_study_compares_equal_values_and_has_a_figure(define: Define, tmp_path: Path) -> None:
    text = (
        EXPERIMENT + "study: {setting: train.batch_size, label: batch, values: [4, 8], log: true, log_numbers: true}\n"
    )
    text = text.replace("{label: with volume,", "{label: with volume, values: [8],")
    definition = define(text)
    runs = plan_runs(definition, seeds=1)
    for run in runs:
        leave(run, RECALL[run.variant][0] + run.value)
    found = gather(definition, runs, "tiny", {})
    assert list(found["cells"]) == ["plain-4", "plain-8", "volume-8"]
    assert found["cells"]["plain-4"]["label"] == "plain, batch 4"
    assert found["differences"] == {
        "plain-4": {}, "plain-8": {},
        "volume-8": {"plain-8": {c: summary({"0": 4.0}) for c in ("one2two R@1", "one2two+three R@5")}},
    }  # fmt: skip
    drawn = draw_figures(found, tmp_path / "figures")
    assert set(drawn) == {"study.png", "validation.png"} and "against batch" in drawn["study.png"]
    assert all((tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    words = define(
        text.replace("train.batch_size", "objective.denominator")
        .replace("4, 8", "all, negatives")
        .replace("values: [8],", "")
    )
    runs = plan_runs(words, seeds=1)
    for run in runs:
        leave(run, 50.0)
    assert "study.png" in draw_figures(gather(words, runs, "tiny", {}), tmp_path / "words")


def test_figures_of_variants(found: dict[str, Any], tmp_path: Path) -> None:
    drawn = draw_figures(found, tmp_path / "figures", "trial-")
    assert set(drawn) == {"trial-bars.png", "trial-validation.png"}
    assert all((tmp_path / "figures" / name).stat().st_size > 5000 for name in drawn)


def test_results_go_into_their_place_of_a_page(found: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "docs" / "experiments.md"
    page.parent.mkdir()
    other = "<!-- results: other -->\nkept\n<!-- end of results -->\n"
    page.write_text(f"# Before\n\n{other}\n<!-- results: trial -->\nold\n<!-- end of results -->\n\nafter\n")
    written = write_docs(page, found)
    text = page.read_text()
    assert other in text and "old" not in text and text.startswith("# Before") and text.endswith("\n\nafter\n")
    assert "| plain | 61.5 ± 2.1 |" in text and "](results/experiments/trial-bars.png)" in text
    assert all(path.is_file() for path in written)
    assert json.loads((page.parent / "results/experiments/trial.json").read_text())["means"] == found["means"]
    before = text
    write_docs(page, found)
    assert page.read_text() == before
    page.write_text("# Nothing here\n\n<!-- results: trial -->\n<!-- results: other -->\n<!-- end of results -->\n")
    with pytest.raises(UserError, match="has no place for the results of trial"):
        check_page(page, "trial")
    with pytest.raises(UserError, match="cannot be read"):
        check_page(tmp_path / "none.md", "trial")


def test_a_damaged_record_is_named(define: Define) -> None:
    definition = define()
    runs = plan_runs(definition)
    leave(runs[0], 50.0)
    runs[0].record.write_text('{"metrics": ')
    with pytest.raises(UserError, match=r"result.json is not the result of a run"):
        gather(definition, runs, "tiny", {})
