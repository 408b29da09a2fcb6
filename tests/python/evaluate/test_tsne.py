"""t-SNE: which clips are drawn, the same each time, whatever the rows; and a picture that is not blank."""

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.tsne import Projection, classes_shown, project
from mover.evaluate.tsne_picture import draw_tsne

THREE = ("text", "video", "audio")


def clustered(sizes: tuple[int, ...] = (9, 4, 8, 7), d: int = 12, modalities: tuple[str, ...] = THREE) -> Embeddings:
    """Classes a, b, c, … of these sizes, far from each other; one caption per clip."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(len(sizes)), sizes)
    centre = 5 * random.normal(size=(len(sizes), d))
    vectors = {m: (centre[group] + random.normal(size=(len(group), d))).astype(np.float32) for m in modalities}
    return Embeddings(
        [f"clip{i}" for i in range(len(group))],
        vectors,
        np.arange(len(group)),
        {m: np.ones(len(group), bool) for m in modalities},
        tuple("abcdefghijklmnop"[g] for g in group),
    )


def test_the_three_most_frequent_classes() -> None:
    got = project(clustered())
    assert classes_shown(got) == ["a", "c", "d"]
    assert got.points.shape == (3 * 24, 2) and np.isfinite(got.points).all()
    assert got.clips == got.listed == 24
    assert [list(got.modality).count(m) for m in THREE] == [24] * 3
    embeddings = clustered()
    assert all(embeddings.labels[i] == label for i, label in zip(got.clip, got.label, strict=True))
    assert got.perplexity == pytest.approx((72 - 1) / 3)
    assert classes_shown(project(clustered(), classes=None)) == ["a", "c", "d", "b"]
    assert classes_shown(project(clustered((3, 5, 5)), classes=2)) == ["b", "c"]


def test_classes_lie_together() -> None:
    got = project(clustered((20, 20, 20)))
    apart = np.linalg.norm(got.points[:, None] - got.points, axis=2) + 1e9 * np.eye(len(got.points))
    assert (got.label[apart.argmin(1)] == got.label).mean() > 0.95


def test_the_same_each_time_and_another_with_another_seed() -> None:
    embeddings = clustered((30, 30, 30))
    first, again = project(embeddings), project(embeddings)
    assert np.array_equal(first.points, again.points)
    part = project(embeddings, clips=20)
    assert (part.clips, part.listed, len(part.points)) == (20, 90, 60)
    assert np.array_equal(part.clip, project(embeddings, clips=20).clip)
    assert not np.array_equal(np.unique(part.clip), np.unique(project(embeddings, clips=20, seed=1).clip))


def test_without_labels_all_clips_are_drawn() -> None:
    embeddings = clustered()
    for labels in (None, ("",) * 28):
        got = project(replace(embeddings, labels=labels))
        assert got.clips == 28 and set(got.label) == {""} and classes_shown(got) == []
    some = project(replace(embeddings, labels=("", *embeddings.labels[1:5], *[""] * 23)), classes=None)
    assert sorted(set(some.clip)) == [1, 2, 3, 4]


def test_what_is_not_there_is_not_drawn() -> None:
    embeddings = clustered()
    embeddings.present["audio"][0] = False
    embeddings.vectors["video"][1] = np.nan
    got = project(embeddings)
    drawn = set(zip(got.clip.tolist(), got.modality.tolist(), strict=True))
    assert len(drawn) == len(got.points) == 70
    assert (0, "audio") not in drawn and (1, "video") not in drawn and (0, "video") in drawn


def test_few_and_equal_rows() -> None:
    two = clustered((2,), modalities=("text", "video"))
    assert project(two).points.shape == (4, 2)
    with pytest.raises(UserError, match="at least 4 rows of at least two dimensions: here are 2 of 12"):
        project(two.select(np.array([0])))
    with pytest.raises(UserError, match="here are 8 of 1"):
        project(clustered((4,), d=1, modalities=("text", "video")))
    for rows in two.vectors.values():
        rows[:] = 1
    assert np.array_equal(project(two).points, np.zeros((4, 2)))
    copies = clustered((20, 20))
    for rows in copies.vectors.values():
        rows[:20], rows[20:] = rows[0], rows[20]
    assert np.isfinite(project(copies).points).all()
    none = clustered((4,))
    for rows in none.vectors.values():
        rows[:] = 0
    with pytest.raises(UserError, match="here are 0"):
        project(none)


def colours(projection: Projection, path: Path, title: str = "a run") -> set[tuple[int, ...]]:
    draw_tsne(projection, path, title)
    image = matplotlib.image.imread(path)
    assert image.shape[0] > 600 and image.shape[1] > 1000
    values, counts = np.unique(np.rint(image[..., :3].reshape(-1, 3) * 255).astype(int), axis=0, return_counts=True)
    return {tuple(v) for v, n in zip(values.tolist(), counts, strict=True) if n > 40 and max(v) - min(v) > 30}


def test_picture(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tsne.png"
    three = colours(project(clustered()), path)
    assert [p.name for p in path.parent.iterdir()] == ["tsne.png"]
    every = colours(project(clustered((3,) * 12), classes=None), path, "a_title with $ and ^ " * 9)
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= three < every
    by_modality = colours(project(replace(clustered(modalities=(*THREE, "depth")), labels=None)), path)
    assert len(by_modality) >= 4
    odd = replace(clustered(), labels=tuple(f"${{label}}_{label} <b> " * 9 for label in clustered().labels))
    assert three & colours(project(odd), path)
