"""The code in docs/library.md runs, one piece after the other, and does what it says."""

import re
from pathlib import Path
from typing import Any

import pytest

DOCUMENT = Path(__file__).parents[3] / "docs" / "library.md"


def test_the_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, DOCUMENT.name, "exec"), names)
    assert names["terms"].keys() == {"mover", "volume_contrastive", "pairwise", "total"}
    assert not names["heads"]["audio"].weight.grad.isnan().any()
    assert float(names["solved"].marginal_error.max()) < 1e-5
    recall = names["metrics"]["T2VA"]["R@1"]
    assert float(names["recall"]) == pytest.approx(recall, abs=0.01)
    said = capsys.readouterr().out
    assert "volume_contrastive" in said and "T2VA span" in said
