"""Figures inside the page: colours are variables, ids are their own, text is text."""

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from cases.reports import HOSTILE
from mover.report import charts
from mover.report.charts import INK, LINE, MUTED, PAPER, SERIES, chart, drawing, label_ends, spread

CSS = (Path(charts.__file__).parent / "templates" / "page.css").read_text()


def drawn(name: str, text: str = "title") -> str:
    with drawing() as (figure, axes):
        axes.fill_between([0, 1], [0, 0], [1, 1], color=SERIES[0], alpha=0.4)
        axes.scatter([0, 1], [0, 1], color=SERIES[1])
        axes.plot([0, 1], [0.1, 0.2], color=MUTED)
        axes.set_title(text, color=INK)
        return str(chart(figure, name, text).svg)


def test_every_colour_is_a_variable_of_the_style() -> None:
    svg = drawn("a")
    assert re.findall(r"#[0-9a-fA-F]{6}\b", svg) == []
    used = set(re.findall(r"var\((--[\w-]+)\)", svg))
    assert {"--ink", "--muted", "--line", "--series-1", "--series-2"} <= used
    for variable in used | set(charts._VARIABLES.values()):
        assert f"{variable}: light-dark(" in CSS
    assert len({INK, MUTED, LINE, PAPER, *SERIES}) == 10


def test_two_figures_share_no_id_and_refer_to_their_own() -> None:
    found = []
    for name in ("one", "two"):
        root = ET.fromstring(drawn(name))
        ids = {e.attrib["id"] for e in root.iter() if "id" in e.attrib}
        references = set()
        for element in root.iter():
            for value in element.attrib.values():
                references |= set(re.findall(r"url\(#([\w-]+)\)", value)) | set(re.findall(r"^#([\w-]+)$", value))
        assert ids and references == ids and all(i.startswith(f"{name}-") for i in ids)
        found.append(ids)
    assert not found[0] & found[1]


def test_text_stays_text() -> None:
    svg = drawn("a", HOSTILE)
    assert "<script" not in svg and "<img" not in svg
    root = ET.fromstring(svg)
    assert root.attrib["aria-label"] == HOSTILE
    assert any(e.text and HOSTILE in e.text for e in root.iter("{http://www.w3.org/2000/svg}text"))
    assert not list(root.iter("{http://www.w3.org/2000/svg}style"))  # it would be that of the whole page
    assert not list(root.iter("{http://www.w3.org/2000/svg}metadata"))


def test_equal_figures_are_equal_text() -> None:
    assert drawn("a") == drawn("a")


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_spread_as_little_as_it_takes(seed: int) -> None:
    random = np.random.default_rng(seed)
    places = np.sort(random.random(random.integers(1, 9))).tolist()
    gap = 0.1
    moved = spread(places, gap)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(moved))
    assert min(moved) >= 0 and max(moved) <= 1 + 1e-9
    cost = np.square(np.subtract(moved, places)).sum()
    for _ in range(300):  # nothing near is better
        other = np.sort(np.clip(np.array(moved) + 0.03 * random.normal(size=len(places)), 0, 1))
        if (np.diff(other) >= gap).all():
            assert np.square(other - places).sum() >= cost - 1e-9


def test_labels_that_do_not_fit_are_spread_evenly() -> None:
    assert spread([0.5] * 5, 0.4) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert spread([], 0.1) == [] and spread([0.3], 0.1) == [0.3]


def test_lines_that_end_in_nothing_get_no_label() -> None:
    with drawing() as (_, axes):
        axes.set_ylim(0, 1)
        label_ends(axes, [("there", 0.5, INK), ("gone", float("nan"), INK)])
        assert [text.get_text() for text in axes.texts] == ["there"]


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_has_contrast_in_both_schemes() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    found = dict(re.findall(r"(--[\w-]+): light-dark\((#[0-9a-f]{6}, #[0-9a-f]{6})\)", CSS))
    pairs = {name: value.split(", ") for name, value in found.items()}
    texts = [name for name in pairs if name not in ("--paper", "--panel", "--line")]
    assert len(texts) >= 11
    for scheme in (0, 1):
        for name in texts:
            for ground in ("--paper", "--panel"):
                assert contrast(pairs[name][scheme], pairs[ground][scheme]) >= 4.5, (name, ground, scheme)
