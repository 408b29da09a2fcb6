"""What is written of a result: metrics.json, both tables of comma-separated values, and the table on the screen."""

import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.metrics import METRICS, metrics_of
from mover.evaluate.rank import rankings
from mover.evaluate.results import (
    COLUMNS,
    META,
    SHOWN,
    metrics_table,
    provenance,
    write_csv,
    write_metrics,
    write_ranks,
)

NAMES = ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"]
OTHERS = ["T2VA span", "VA2T span", "T2VA cosine", "VA2T cosine"]


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    """Nine clips with one to three captions in no order; ids that need quotes."""
    random = np.random.default_rng(0)
    owner = random.permutation([i for i in range(9) for _ in range(1 + i % 3)])
    centre = random.normal(size=(9, 6))
    places = {"text": owner, "video": np.arange(9), "audio": np.arange(9)}
    vectors = {m: (centre[p] + 0.7 * random.normal(size=(len(p), 6))).astype(np.float32) for m, p in places.items()}
    ids = [f'clip "{i}", <b>' for i in range(9)]
    return Embeddings(ids, vectors, owner, {m: np.ones(9, dtype=bool) for m in vectors})


def scored(embeddings: Embeddings) -> tuple[dict[str, dict[str, Any]], dict[str, Any], list[Any]]:
    found = rankings(embeddings, every_score=True)
    return metrics_of(found, 9, resamples=50), {"split": "test", **provenance(embeddings, "fail")}, found


def test_json(embeddings: Embeddings, tmp_path: Path) -> None:
    metrics, meta, _ = scored(embeddings)
    path = tmp_path / "new" / "metrics.json"
    write_metrics(path, metrics, meta)
    written = json.loads(path.read_text())
    meta = written.pop(META)
    assert written == metrics and list(written) == NAMES + OTHERS
    for name, row in written.items():
        gain = {"gain"} if "VA" in name else set()
        assert set(row) == {*COLUMNS, "score", "intervals"} | gain
        assert set(row["intervals"]) == {*METRICS} | gain
        assert all(low <= high for low, high in row["intervals"].values())
    assert (meta["clips"], meta["captions"], meta["split"], meta["missing_policy"]) == (9, 18, "test", "fail")
    assert len(meta["ids_sha256"]) == 64 and meta["unusable_policy"] == "last"
    assert not [p for p in path.parent.iterdir() if p != path]


def test_provenance_tells_the_policies_apart(embeddings: Embeddings) -> None:
    present = {m: flags.copy() for m, flags in embeddings.present.items()}
    present["audio"][0] = False
    vectors = {m: rows.copy() for m, rows in embeddings.vectors.items()}
    vectors["video"][1] = 0
    given = Embeddings(embeddings.ids, vectors, embeddings.text_owner, present)
    dropped, masked = provenance(given, "drop"), provenance(given, "mask")
    assert (dropped["listed"], dropped["clips"], dropped["captions"], dropped["joint_score"]) == (9, 8, 17, "volume")
    assert (masked["listed"], masked["clips"], masked["captions"], masked["joint_score"]) == (9, 9, 18, "span")
    assert dropped["without"] == masked["without"] == {"text": 0, "video": 0, "audio": 1}
    assert dropped["unusable_rows"] == masked["unusable_rows"] == {"text": 0, "video": 1, "audio": 0}
    left = provenance(given, "drop", unusable="missing")
    assert (left["clips"], left["unusable_policy"]) == (7, "missing")
    hashes = [provenance(embeddings, "fail")["ids_sha256"], dropped["ids_sha256"], left["ids_sha256"]]
    assert masked["ids_sha256"] == hashes[0] and len(set(hashes)) == 3


def test_csv(embeddings: Embeddings, tmp_path: Path) -> None:
    metrics, meta, _ = scored(embeddings)
    write_csv(tmp_path / "m.csv", metrics, meta)
    rows = list(csv.DictReader((tmp_path / "m.csv").open(newline="")))
    assert [row["direction"] for row in rows] == NAMES + OTHERS
    for row in rows:
        known = metrics[row["direction"]]
        assert all(float(row[column]) == known[column] for column in COLUMNS)
        for column, bounds in known["intervals"].items():
            assert [float(row[f"{column} low"]), float(row[f"{column} high"])] == bounds
        assert row["gain"] == str(known.get("gain", "")) and row["score"] == known["score"]
        assert (row["missing_policy"], row["unusable_policy"]) == ("fail", "last")
        assert row["ids_sha256"] == meta["ids_sha256"]


def test_ranks(embeddings: Embeddings, tmp_path: Path) -> None:
    metrics, _, found = scored(embeddings)
    write_ranks(tmp_path / "r.csv", embeddings, found)
    rows = list(csv.DictReader((tmp_path / "r.csv").open(newline="")))
    assert len(rows) == sum(row["N"] for row in metrics.values())
    for name, row in metrics.items():
        lines = [line for line in rows if line["direction"] == name]
        assert np.mean([float(line["rank"]) for line in lines]) == pytest.approx(row["MnR"], abs=1e-4)
        assert all(
            float(r["rank"]) == pytest.approx(1 + int(r["better"]) + int(r["tied"]) / (int(r["own"]) + 1))
            for r in lines
        )
    asked = [(line["id"], line["caption"]) for line in rows if line["direction"] == "T2V"]
    owner = embeddings.text_owner
    assert asked == [
        (embeddings.ids[o], str((owner[:row] == o).sum())) for row, o in enumerate(owner)
    ]  # fmt: skip
    assert {line["caption"] for line in rows if line["direction"] == "V2T"} == {""}


def test_a_table_fits_80_columns(embeddings: Embeddings) -> None:
    metrics, meta, _ = scored(embeddings)
    console = Console(file=io.StringIO(), width=80)
    console.print(metrics_table({**metrics, META: meta}, "title"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(word in shown for word in itertools.chain(NAMES, OTHERS, SHOWN, ["R@1", "95 %", "gain", "title"]))
    assert META not in shown and "…" not in shown
    bare = metrics_table({"T2V": {**metrics["T2V"], "intervals": {}}}, "title")
    console.print(bare)


def test_what_cannot_be_written_is_told(embeddings: Embeddings, tmp_path: Path) -> None:
    metrics, meta, found = scored(embeddings)
    (tmp_path / "file").write_text("")
    for write in (
        lambda path: write_metrics(path, metrics, meta),
        lambda path: write_csv(path, metrics, meta),
        lambda path: write_ranks(path, embeddings, found),
    ):
        with pytest.raises(UserError, match="cannot be written"):
            write(tmp_path / "file" / "x")
