"""What the matches of a run did: read from its log and plans, and drawn."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mover.experiments.figures import draw_figures
from mover.experiments.matches import draw_matches, match_history
from mover.train.run_folder import RunFolder


def diagnostics(step, kept, right):
    return {"kind": "diagnostics", "step": step, "matches": {"kept": kept, "right": right}}


def folder_with_plans(path: Path, steps=(100, 200, 300)) -> RunFolder:
    """Plans of four clips that go from uniform to the diagonal."""
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    for step in steps:
        sure = (step - steps[0]) / (steps[-1] - steps[0])
        plan = (sure * np.eye(4) + (1 - sure) / 4) / 4
        folder.write_plans(step, {"text-video+audio": plan})
    return folder


def test_the_history_of_a_run(tmp_path):
    log = [
        {"kind": "train", "step": 50},
        diagnostics(50, 0.1, None),
        {"kind": "diagnostics", "step": 60, "matches": None},
        diagnostics(100, 0.5, 0.75),
    ]
    found = match_history(folder_with_plans(tmp_path), log)
    assert found is not None
    assert found["kept"] == [[50, 0.1, None], [100, 0.5, 0.75]]
    assert found["pair"] == "text-video+audio"
    assert [entry[0] for entry in found["maps"]] == [100, 200, 300]
    assert [entry[2] for entry in found["maps"]] == [25.0, 100.0, 100.0]  # of equal entries each counts in part
    last = Image.open(io.BytesIO(base64.b64decode(found["maps"][-1][1].partition(",")[2])))
    assert np.array_equal(np.asarray(last), 255 * np.eye(4, dtype=np.uint8))


def test_at_most_five_plans_the_first_and_the_last_among_them(tmp_path):
    found = match_history(folder_with_plans(tmp_path, tuple(range(100, 1000, 100))), [diagnostics(100, 0.5, 1.0)])
    assert found is not None and [entry[0] for entry in found["maps"]] == [100, 300, 500, 700, 900]


def test_a_run_without_matches_or_without_plans(tmp_path):
    assert match_history(folder_with_plans(tmp_path), [{"kind": "diagnostics", "step": 1}]) is None
    found = match_history(RunFolder(tmp_path / "none"), [diagnostics(10, 0.0, None)])
    assert found == {"kept": [[10, 0.0, None]], "pair": None, "maps": []}


@pytest.fixture
def results(tmp_path):
    """Of a variant with matches, two seeds, and one without."""
    history = match_history(
        folder_with_plans(tmp_path / "run"), [diagnostics(100, 0.2, None), diagnostics(200, 0.8, 0.9)]
    )
    validation = [[100, {"T2V": 5.0, "T2VA": 10.0}], [200, {"T2V": 40.0, "T2VA": 60.0}]]
    run = {"matches": history, "validation": validation}
    runs = {
        "groups": {"0": run, "1": {**run, "matches": {**history, "maps": []}}},
        "plain": {"0": {"matches": None, "validation": validation}},
    }
    cells = {
        name: {"label": name, "variant": name, "variant_label": name, "value": None, "runs": own}
        for name, own in runs.items()
    }
    return {"study": None, "cells": cells}


def test_the_picture(results, tmp_path):
    path = tmp_path / "matches.png"
    assert draw_matches(results, path)
    width, height = Image.open(path).size
    assert width > 800 and height > 400


def test_a_study_has_a_panel_for_each_value(results, tmp_path):
    before = tmp_path / "matches.png"
    draw_matches(results, before)
    cells = {
        f"{name}-{value}": {**cell, "label": f"{name}, share {value}", "value": value}
        for value in (0.0, 0.25, 0.5, 1.0) for name, cell in results["cells"].items()
    }  # fmt: skip
    path = tmp_path / "study.png"
    assert draw_matches({"study": {"label": "share"}, "cells": cells}, path)
    (width, height), (old_width, old_height) = Image.open(path).size, Image.open(before).size
    assert width > 1.3 * old_width and height == old_height, "more panels, and plans of one value"


def test_no_picture_without_matches(results, tmp_path):
    del results["cells"]["groups"]
    assert not draw_matches(results, tmp_path / "matches.png")
    assert not (tmp_path / "matches.png").exists()


def test_it_is_one_of_the_figures_of_an_experiment(results, tmp_path):
    found = {
        **results, "title": "Sets", "columns": ["T2VA"], "tables": {"": ["T2VA"]},
        "means": {name: {"T2VA": {"mean": 50.0, "n": 1, "values": {"0": 50.0}}} for name in results["cells"]},
    }  # fmt: skip
    drawn = draw_figures(found, tmp_path, "sets-")
    assert list(drawn) == ["sets-bars.png", "sets-validation.png", "sets-matches.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
