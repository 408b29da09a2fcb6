"""The code in docs/embeddings.md runs, one piece after the other, and writes what it says."""

from pathlib import Path

import numpy as np
import pytest

from cases.documents import run_blocks
from mover.evaluate.directions import directions
from mover.evaluate.embeddings_file import load_embeddings


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    run_blocks("embeddings.md", 6)

    assert load_embeddings(tmp_path / "pairs.npz").text_owner.tolist() == [0, 1, 2, 3]
    one, *others = (load_embeddings(tmp_path / f"captions{suffix}") for suffix in (".npz", ".safetensors", ".parquet"))
    assert one.missing("audio") == ["video7012"] and one.text_owner.tolist() == [0, 0, 1, 2, 2, 2, 3]
    assert one.labels == ("dog", "rain", "dog", "")
    for other in others:
        assert other.ids == one.ids and np.array_equal(other.text_owner, one.text_owner)
        for m in one.modalities:
            there = one.present[m][one.text_owner] if m == "text" else one.present[m]
            assert np.array_equal(other.vectors[m][there], one.vectors[m][there])
            assert np.array_equal(other.present[m], one.present[m])
    assert others[0].provenance == {"system": "mine", "weights": "v2"} and others[1].labels == one.labels
    for k in range(2, 9):
        got = load_embeddings(tmp_path / f"k{k}.npz")
        assert len(got.modalities) == k and len(directions(got.modalities)) >= k * (k - 1)
    assert "('text', 'video', 'audio') ['video7012']" in capsys.readouterr().out
