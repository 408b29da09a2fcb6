"""Ranking on a GPU: the ranks of the CPU, those by cosine to the last one, and the same ones every time."""

import numpy as np
import pytest
import torch

pytest.importorskip("pydantic", reason="embeddings know the modalities of a configuration, which needs pydantic")

from mover.evaluate import counting
from mover.evaluate.directions import directions
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.rank import rankings, top_candidates

pytestmark = pytest.mark.gpu


def embeddings(clips=700, d=48):
    """Two captions a clip, some rows copies of others, some missing, some that cannot be used."""
    random = np.random.default_rng(0)
    centre = random.normal(size=(clips, d))
    owner = random.permutation(np.repeat(np.arange(clips), 2))
    places = {"text": owner, "video": np.arange(clips), "audio": np.arange(clips)}
    vectors = {m: (centre[p] + 1.5 * random.normal(size=(len(p), d))).astype(np.float32) for m, p in places.items()}
    for rows in vectors.values():
        rows[50:90] = rows[3]
        rows[7] = np.nan
    present = {m: random.random(clips) < 0.9 for m in vectors}
    return Embeddings([f"c{i}" for i in range(clips)], vectors, owner, present)


@pytest.mark.parametrize("tile", [(8192, 8192), (96, 160)])
def test_ranks_are_those_of_the_cpu(device, tile, monkeypatch):
    monkeypatch.setattr(counting, "TILE_ON_GPU", tile)
    given = embeddings()
    here = rankings(given, torch.device("cpu"), every_score=True, dual_softmax=0.05)
    there = rankings(given, device, every_score=True, dual_softmax=0.05)
    again = rankings(given, device, every_score=True, dual_softmax=0.05)
    assert [ranking.name for ranking in here] == [ranking.name for ranking in there]
    for cpu, gpu, twice in zip(here, there, again, strict=True):
        assert np.array_equal(gpu.standing.better, twice.standing.better)
        assert np.array_equal(gpu.standing.tied, twice.standing.tied)
        difference = np.abs(cpu.standing.expected_rank - gpu.standing.expected_rank)
        if cpu.score == "cosine" and cpu.dual_softmax is None:
            assert difference.max() == 0, cpu.name
            assert np.array_equal(cpu.standing.precision(), gpu.standing.precision())
        else:  # float32 volumes and exponentials differ in their last bits, so near ties may fall the other way
            assert difference.mean() < 0.05 and np.array_equal(cpu.query, gpu.query), cpu.name


def test_best_candidates_are_those_of_the_cpu(device):
    given = embeddings()
    for direction in directions(given.modalities):
        here, there = (top_candidates(given, direction, 5, device=where) for where in (torch.device("cpu"), device))
        assert np.allclose(here.scores, there.scores, atol=1e-5, equal_nan=True)
        if here.score == "cosine":
            assert np.array_equal(here.candidates, there.candidates) and np.array_equal(
                here.scores, there.scores, equal_nan=True
            )
