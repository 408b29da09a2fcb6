"""Classes for embeddings that come without: labels of a table or of a manifest, put to the clips by their ids."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mover.data.manifest import read_manifest
from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings

COLUMNS = ("id", "label")


@dataclass(frozen=True)
class Labelled:
    """embeddings: with the labels. without: clips for which the labels have none. strangers: labels of other clips."""

    embeddings: Embeddings
    without: int
    strangers: int


def read_labels(path: Path) -> dict[str, str]:
    """Id to class name, from a CSV file with the columns id and label or from a manifest (.jsonl); "" is no label.

    Raises:
        UserError: no such file, no such columns, a row that is cut short, or an id with two labels.
    """
    if path.suffix == ".jsonl":
        return {clip.id: clip.label or "" for clip in read_manifest(path)}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise UserError(
                    f"{path}: expected a CSV file with the columns id and label, found {reader.fieldnames or 'none'}; "
                    "or a manifest, whose name ends in .jsonl."
                )
            labels: dict[str, str] = {}
            for row in reader:
                name, label = (row[column] for column in COLUMNS)
                if name is None or label is None:
                    raise UserError(f"{path}, line {reader.line_num}: expected an id and a label.")
                if labels.setdefault(name, label) != label:
                    raise UserError(
                        f"{path}, line {reader.line_num}: '{name}' has the labels '{labels[name]}' and '{label}'. "
                        "Keep one."
                    )
            return labels
    except FileNotFoundError:
        raise UserError(f"There are no labels at {path}.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV file in UTF-8: {error}.") from None


def with_labels(embeddings: Embeddings, labels: Mapping[str, str], where: Path) -> Labelled:
    """The embeddings with these labels in place of their own.

    Raises:
        UserError: not one clip has a label.
    """
    found = tuple(labels.get(name, "") for name in embeddings.ids)
    if not any(found):
        raise UserError(
            f"{where} has a label for none of the {len(found)} clips, the first of which is '{embeddings.ids[0]}': its "
            "ids must be those of the embeddings."
        )
    known = set(embeddings.ids)
    strangers = sum(bool(label) and name not in known for name, label in labels.items())
    return Labelled(replace(embeddings, labels=found), found.count(""), strangers)
