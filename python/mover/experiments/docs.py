"""Results put into a page of the documentation: between two comments there, with figures and data beside the page.

    <!-- results: mover-sets -->
    …
    <!-- end of results -->

What stands between them is replaced. Figures and results.json go to results/experiments/, beside the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mover.durable_file import durable_file
from mover.errors import UserError
from mover.experiments.figures import draw_figures
from mover.experiments.tables import markdown

FOLDER = Path("results/experiments")
_END = "<!-- end of results -->"


def check_page(page: Path, experiment: str) -> str:
    """The text of a page that has a place for the results of an experiment.

    Raises:
        UserError: there is no such page, or no place in it.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{page} cannot be read: {error.strerror}. Name a page that is there.") from None
    if _place(experiment).search(text) is None:
        raise UserError(
            f"{page} has no place for the results of {experiment}: write '<!-- results: {experiment} -->' and, on a "
            f"later line, '{_END}' where they are to stand."
        )
    return text


def write_docs(page: Path, found: Mapping[str, Any]) -> list[Path]:
    """Put results, as `mover.experiments.results.gather` gives them, into a page; returns the files written.

    Raises:
        UserError: as `check_page`, or a file cannot be written.
    """
    name = found["experiment"]
    text = check_page(page, name)
    folder = page.parent / FOLDER
    drawn = draw_figures(found, folder, f"{name}-")
    data = folder / f"{name}.json"
    with durable_file(data) as file:
        file.write((json.dumps(found, indent=1) + "\n").encode("utf-8"))
    links = {(FOLDER / figure).as_posix(): label for figure, label in drawn.items()}
    body = markdown(found, links).rstrip("\n")
    new = _place(name).sub(lambda match: f"{match[1]}\n{body}\n{_END}", text, count=1)
    with durable_file(page) as file:
        file.write(new.encode("utf-8"))
    return [page, data, *(folder / figure for figure in drawn)]


def _place(experiment: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- results: {re.escape(experiment)} -->)\n(?:(?!<!-- results:).)*?{_END}", re.DOTALL)
