"""The code in docs/library.md runs, one piece after the other, and does what it says."""

import pytest

from cases.documents import run_blocks


def test_the_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_blocks("library.md", 7)
    assert names["terms"].keys() == {"mover", "volume_contrastive", "pairwise", "total"}
    assert not names["heads"]["audio"].weight.grad.isnan().any()
    assert float(names["solved"].marginal_error.max()) < 1e-5
    recall = names["metrics"]["T2VA"]["R@1"]
    assert float(names["recall"]) == pytest.approx(recall, abs=0.01)
    said = capsys.readouterr().out
    assert "volume_contrastive" in said and "T2VA span" in said
