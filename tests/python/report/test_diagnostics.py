"""Charts of the diagnostics from the lines of a log, whole or not, and what the run was warned of."""

from typing import Any

from cases.reports import HOSTILE, diagnostics_of, embeddings_of, log_of, material_of
from mover.report.diagnostics import alarms, diagnostic_charts
from mover.report.page import build_report


def test_a_chart_for_everything_that_was_measured() -> None:
    volumes, recall, plans, matches, gradients = diagnostic_charts(log_of(12) + diagnostics_of(12, matches=True))
    assert "random groups from 0.95 to 0.95; true groups from 0.75 to 0.35" in volumes.label  # from step 4 on
    assert "T2VA from 27 to 80 %" in recall.label and "mean of all from 8 to 65 %" in recall.label
    assert "text – video: entropy from 85 to 10 %, rows right from 17 to 100 %" in plans.label
    assert "text – audio: entropy from 70 to 10 %" in plans.label
    assert "kept from 17 to 50 %, right of these from 33 to 100 %" in matches.label
    assert "text from 2 to 2; audio from 0.5 to 0.083; heads" in gradients.label and "video" not in gradients.label


def test_logs_with_less_in_them() -> None:
    assert diagnostic_charts([]) == diagnostic_charts(log_of(12)) == []
    names = [chart.label.split(" ")[0] for chart in diagnostic_charts(diagnostics_of(12))]
    assert names == ["Median", "Recall@1", "Transport", "Norms"]  # no matching
    assert len(diagnostic_charts(diagnostics_of(2))) == 3  # one line, no volumes
    nothing: dict[str, Any] = {
        "kind": "diagnostics", "step": 5, "volumes": {"positives": None, "negatives": None}, "cosines": {},
        "plans": {"text-video": None}, "R@1": {"T2V": None, "V2T": None}, "matches": None,
        "gradients": {"towers": {"text": None}, "heads": None, "temperatures": None},
    }  # fmt: skip
    assert diagnostic_charts([nothing]) == []
    both = diagnostic_charts([nothing, *diagnostics_of(12, matches=True)])
    assert len(both) == 5 and "rows right from 17 to 100 %" in both[2].label


def test_warnings_in_their_order() -> None:
    log = [{"kind": "warning", "step": 9, "symptom": "collapse", "message": "first"}, *log_of(4)]
    log.append({"kind": "warning", "step": 20, "symptom": "one point", "message": "second"})
    assert alarms(log) == ["first", "second"] and alarms(log_of(4)) == []


def test_the_section_is_there_where_there_are_diagnostics(plain_charts: None) -> None:
    without = build_report(material_of(embeddings_of(6), {}, log=log_of(12)), queries=0)
    assert 'id="diagnostics"' not in without and "#diagnostics" not in without
    warning = {"kind": "warning", "step": 9, "symptom": "collapse", "message": HOSTILE}
    page = build_report(material_of(embeddings_of(6), {}, log=[*log_of(12), *diagnostics_of(12), warning]), queries=0)
    section = page.split('<section id="diagnostics"')[1].split("</section>")[0]
    assert section.count("<svg/>") == 4
    assert "<script>" not in section and "&lt;script&gt;alert(1)" in section
    assert '<li><a href="#diagnostics">' in page
