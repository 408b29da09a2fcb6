"""The Python code that a page of the documentation shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def run_blocks(page: str, count: int) -> dict[str, Any]:
    """Run the blocks of docs/`page`, of which there are to be `count`, one after the other; the names they leave."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == count
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names
