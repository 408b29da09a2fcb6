"""The embedding space: points by modality and class, and a table without holes."""

from cases.reports import HOSTILE, embeddings_of
from mover.evaluate.analysis import analyse
from mover.evaluate.tsne import project
from mover.report.space import numbers, tsne_charts


def test_points_by_modality_and_by_class() -> None:
    labels = tuple([HOSTILE, "ring"][i % 2] for i in range(12))
    by_modality, by_class = tsne_charts(project(embeddings_of(12, labels=labels)))
    assert "12 clips, coloured by modality: text, video, audio" in by_modality.label
    assert "ring" in by_class.label and HOSTILE in by_class.label
    assert "<script" not in by_class.svg
    assert by_modality.svg.count("<use ") == 3 * 12 + 3  # the points, and the legend
    assert len(tsne_charts(project(embeddings_of(12)))) == 1


def test_every_number_has_a_value_and_says_what_is_good() -> None:
    with_labels = numbers(analyse(embeddings_of(12, labels=tuple("ab" * 6))))
    without = numbers(analyse(embeddings_of(12)))
    assert len(with_labels) == 9 and len(without) == 6
    for row in with_labels:
        assert row.value and row.good and "nan" not in row.value.lower() and "None" not in row.value
    assert [row.what for row in with_labels][:6] == [row.what for row in without]
    analysis = analyse(embeddings_of(12))
    gap = next(row for row in without if row.what.startswith("Modality gap"))
    value = gap.value.replace("\N{NO-BREAK SPACE}", " ")
    assert value.startswith(f"text – video {analysis['pairs']['text-video']['gap']:.2f}, text – audio ")


def test_what_is_not_defined_is_left_out() -> None:
    rows = numbers(analyse(embeddings_of(1)))
    assert all(row.value for row in rows)
    assert not any(row.what.startswith("Uniformity") for row in rows)
