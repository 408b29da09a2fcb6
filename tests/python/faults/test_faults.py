"""What `scripts/faults` injects, a few times each: every run ends as if nothing had happened, or says what to do."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts" / "fault_injection"))

from fault import Fault, NotHere  # noqa: E402
from place import Place, at_step  # noqa: E402

spec = importlib.util.spec_from_file_location("faults", ROOT / "scripts" / "fault_injection" / "main.py")
assert spec is not None and spec.loader is not None
faults = importlib.util.module_from_spec(spec)  # other scripts have a main.py, too
spec.loader.exec_module(faults)

SHARES = {"kill-writing": (0.2, 0.7, 0.95), "kill-again": (0.9,), "manifest": (0.3, 0.45, 0.9)}
"""Which of the times; others once, in the middle."""
SLOW = ("rank", "rank-restart")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    return Place(tmp_path_factory.mktemp("faults"))


def cases() -> list[Any]:
    return [
        pytest.param(f, share, id=f"{f.name}-{share}", marks=[pytest.mark.slow] if f.name in SLOW else [])
        for f in faults.FAULTS.values()
        for share in SHARES.get(f.name, (0.5,))
    ]


@pytest.mark.parametrize(("fault", "share"), cases())
def test_a_run_survives(place: Place, fault: Fault, share: float) -> None:
    try:
        seen = fault.once(place, share)
    except NotHere as reason:
        pytest.skip(str(reason))
    assert "Traceback" not in seen and len(seen) < 1000


def test_earlier_checkpoints_are_kept_through_a_kill(place: Place) -> None:
    for name in ("through", "killed"):
        before = at_step(11, lambda: os.kill(os.getpid(), signal.SIGKILL)) if name == "killed" else lambda: None
        place.train(name, before=before, train__keep_checkpoints=3).wait()
    assert place.check_whole("killed") == 9
    place.resume("killed", train__keep_checkpoints=3)
    place.check_same("killed", place.run("through"))
    kept = sorted(path.name for path in place.run("killed").last.parent.iterdir())
    assert kept == ["best", "last", "step-000008", "step-000009"]


def test_the_page_is_that_of_the_record() -> None:
    record = json.loads(faults.RECORD.read_text(encoding="utf-8"))
    assert list(record["faults"]) == list(faults.FAULTS)
    assert all(row["times"] == row["recovered"] for row in record["faults"].values())
    page = faults.PAGE.read_text(encoding="utf-8")
    assert faults.rendered(page, record) == page
