"""Training curves from the lines of a log, whole or not."""

import numpy as np
import pytest

from cases.reports import log_of
from mover.report import curves
from mover.report.charts import SERIES
from mover.report.curves import running_mean, tone_of, training_charts

NAMES = ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"]


def test_a_chart_for_everything_that_was_logged() -> None:
    loss, recall, temperature, gradient = training_charts(log_of(12))
    assert "mover from 0.5 at step 7 to 0.5" in loss.label and "total" not in loss.label
    assert "T2VA from 22.0 % at step 2 to 100.0 % at step 12" in recall.label
    assert "highest at step 10" in recall.label  # of equals the first
    assert "pairwise from 0.07 to 0.07" in temperature.label
    assert "largest 9 at step 1" in gradient.label


def test_logs_with_less_in_them() -> None:
    assert training_charts([]) == [] and training_charts(log_of(0)) == []
    log = log_of(4)
    checks = [line for line in log if line["kind"] == "validation"]
    assert [chart.label.split(" over")[0] for chart in training_charts(checks)] == ["Validation Recall@1"]
    old = [{"kind": "train", "step": step, "terms": {"total": 1.0}} for step in (10, 20)]
    assert len(training_charts(old)) == 1
    checks[0]["R@1"] = {"T2V": 50.0, "V2T": 20.0}  # no clip had sound, then
    assert "T2VA from 42.0 % at step 4 to 42.0 % at step 4" in training_charts(checks)[0].label
    single = training_charts([line for line in log if line["step"] in (0, 1)])
    assert len(single) == 3


def test_both_ways_share_a_colour_and_not_a_dash() -> None:
    tones = {name: tone_of(name, NAMES) for name in NAMES}
    assert tones["T2VA"] == (SERIES[0], "-") and tones["VA2T"][0] == SERIES[0]
    for first, second in zip(NAMES[::2], NAMES[1::2], strict=True):
        assert tones[first][0] == tones[second][0] and tones[first][1] != tones[second][1]
    assert len({tones[name][0] for name in NAMES}) == 4
    assert tone_of("T2V", ["T2V", "V2T"])[0] == tone_of("V2T", ["T2V", "V2T"])[0]


def test_the_running_mean_by_hand() -> None:
    assert running_mean(np.arange(5.0)) == pytest.approx(np.arange(5.0))
    values = np.arange(40.0)  # over two values
    assert running_mean(values) == pytest.approx([0, *(values[1:] + values[:-1]) / 2])


def test_terms_of_one_run_have_colours_of_their_own():
    names = ["volume_contrastive", "pairwise", "confident", "plan_targets", "pool", "ot_loop"]
    tones = curves._tones(names)
    assert len({tones[name] for name in names}) == 6
    assert tones["pairwise"] == curves._tones(["pairwise"])["pairwise"]
    assert len({curves._tones([*names, "mover", "more"])[name] for name in names}) >= 5
