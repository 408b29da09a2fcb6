"""Classes from embeddings: a linear probe, and the nearest text of a class, for each modality and for several fused.

The probe is trained on the training clips, its C is chosen on the validation clips, and the test clips are looked at
once. The texts of the classes come with no training at all. docs/classification.md has the definitions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.intervals import RESAMPLES, bootstrap, interval, means
from mover.evaluate.points import Points, directions_of, points_of, sums_by

CS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""The inverse weights of the L2 penalty that the probe chooses from."""
FUSIONS = ("concatenation", "mean")
_ITERATIONS = 2000

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Input:
    """What is classified: the rows of one modality, or those of several fused, of the clips that have all of them.

    modalities: which. fusion: "" of one; "concatenation" side by side; "mean", the mean of their unit rows, brought
    back to length 1.
    """

    modalities: tuple[str, ...]
    fusion: str = ""

    @property
    def name(self) -> str:
        """As in tables: video; text+video (mean)."""
        return "+".join(self.modalities) + (f" ({self.fusion})" if self.fusion else "")

    def of(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Rows float64 (n, d) and int64 (n,), the clips they are of."""
        clips = np.arange(points.count)
        for modality in self.modalities:
            clips = np.intersect1d(clips, points.clips[modality])
        rows = [points.of(modality, clips) for modality in self.modalities]
        if self.fusion == "concatenation":
            return np.concatenate(rows, axis=1), clips
        if self.fusion == "mean":
            mean, usable = directions_of(np.sum(rows, axis=0))
            return mean[usable], clips[usable]
        return rows[0], clips


@dataclass(frozen=True)
class Sample:
    """Rows (n, d) and the classes of their clips, (n,) names; every clip has one. clips: int64 (n,)."""

    rows: np.ndarray
    labels: np.ndarray
    clips: np.ndarray


def inputs_of(modalities: Sequence[str]) -> list[Input]:
    """Each modality; all of them fused; and, where there is text with two or more others, all but text fused."""
    found = [Input((modality,)) for modality in modalities]
    others = tuple(m for m in modalities if m != "text")
    sets = [tuple(modalities)] + ([others] if 1 < len(others) < len(modalities) else [])
    return found + [Input(names, fusion) for names in sets for fusion in FUSIONS]


def classify(
    train: Embeddings,
    validation: Embeddings,
    test: Embeddings,
    class_texts: Mapping[str, np.ndarray] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress = lambda what: None,
) -> dict[str, Any]:
    """Accuracy and macro F1 on the test clips.

    Args:
        train, validation, test: three splits with labels; clips without one, and rows that are not usable, are left
            out. Captions of a clip count as the mean of their unit rows.
        class_texts: class to a vector (d,) of its text; default: the mean of the training captions of each class.
        resamples, seed: of the test clips, for 95 % intervals of the accuracies; 0: none.
        progress: called with what is classified next.

    Returns:
        {"inputs": {name: {"clips": {"train", "validation", "test"}, "majority", "probe", "nearest_text"}}, "classes",
        "not_trained", "notes"}. majority: accuracy of the class that is most frequent in training. probe: {"C",
        "validation", "accuracy", "macro_f1", "interval"}; nearest_text: {"accuracy", "macro_f1", "interval"}; None
        where there is nothing to compute, and then "notes" says why. All but C in percent.

    Raises:
        UserError: splits of different modalities or widths, a split without labels, or one class in training.
    """
    splits = {"train": train, "validation": validation, "test": test}
    _check(splits)
    points = {name: points_of(embeddings) for name, embeddings in splits.items()}
    labels = {name: np.array(embeddings.labels or [], dtype=np.str_) for name, embeddings in splits.items()}
    known = sorted(set(labels["train"].tolist()) - {""})
    notes: list[str] = []
    if class_texts is None and "text" in train.modalities:
        class_texts = mean_captions(points["train"], labels["train"])
    found: dict[str, Any] = {}
    for input in inputs_of(train.modalities):
        progress(input.name)
        samples = {name: _sample(input, points[name], labels[name]) for name in splits}
        row: dict[str, Any] = {"clips": {name: len(sample.rows) for name, sample in samples.items()}}
        row |= {"majority": None, "probe": None, "nearest_text": None}
        lacking = [name for name, sample in samples.items() if not len(sample.rows)]
        if "test" in lacking:
            notes.append(f"{input.name}: no test clip has it and a label.")
        elif lacking or len(set(samples["train"].labels.tolist())) < 2:
            lacks = f"no {lacking[0]} clip has it and a label" if lacking else "its training clips are of one class"
            notes.append(f"{input.name}: no probe, since {lacks}.")
        else:
            row["majority"] = _majority(samples["train"], samples["test"])
            row["probe"] = _probe(samples, notes, input.name)
        if "test" not in lacking and class_texts and input.fusion != "concatenation":
            row["nearest_text"] = nearest_text(samples["test"], class_texts)
        for kind in ("probe", "nearest_text"):
            if row[kind] is not None:
                row[kind] = _scores(row[kind], samples["test"], resamples, seed)
        found[input.name] = row
    unknown = sorted(set(labels["test"].tolist()) - {"", *known})
    return {"inputs": found, "classes": len(known), "not_trained": unknown, "notes": notes}


def mean_captions(points: Points, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Class to the mean direction (d,) of the captions of its clips; one whose captions cancel out is left out."""
    clips = points.clips["text"]
    names = labels[clips]
    classes = sorted(set(names.tolist()) - {""})
    if not classes:
        return {}
    chosen = names != ""
    vectors, usable = directions_of(
        sums_by(points.rows["text"][chosen], np.searchsorted(classes, names[chosen]), len(classes))
    )
    return {name: vectors[i] for i, name in enumerate(classes) if usable[i]}


def nearest_text(test: Sample, class_texts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Predictions by the largest cosine, equal ones by the name that comes first."""
    names = np.array(sorted(class_texts), dtype=np.str_)
    texts, _ = directions_of(np.stack([class_texts[name] for name in names]).astype(np.float64))
    return {"predicted": names[np.argmax((test.rows @ texts.T).astype(np.float32), axis=1)]}


def _probe(samples: Mapping[str, Sample], notes: list[str], name: str) -> dict[str, Any]:
    """Multinomial logistic regression; of the Cs with the best accuracy on validation the smallest."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    train, validation, test = (samples[split] for split in ("train", "validation", "test"))
    best: tuple[float, float, Any] | None = None
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
        warnings.simplefilter("always", ConvergenceWarning)
        for c in CS:
            model = LogisticRegression(C=c, max_iter=_ITERATIONS).fit(train.rows, train.labels)
            accuracy = 100 * float((model.predict(validation.rows) == validation.labels).mean())
            if best is None or accuracy > best[0]:
                best = accuracy, c, model
    assert best is not None
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        notes.append(f"{name}: a probe had not converged after {_ITERATIONS} iterations.")
    return {"C": best[1], "validation": round(best[0], 4), "predicted": best[2].predict(test.rows)}


def _scores(found: Mapping[str, Any], test: Sample, resamples: int, seed: int) -> dict[str, Any]:
    """Accuracy with its interval, and the mean of F1 over the classes of the test clips, in place of predictions."""
    from sklearn.metrics import f1_score

    predicted = found["predicted"]
    right = 100.0 * (predicted == test.labels)
    classes = sorted(set(test.labels.tolist()))
    f1 = f1_score(test.labels, predicted, labels=classes, average="macro", zero_division=0)
    scores = {key: value for key, value in found.items() if key != "predicted"}
    scores |= {"accuracy": round(float(right.mean()), 4), "macro_f1": round(100 * float(f1), 4)}
    if resamples:
        statistic = means([(np.arange(len(right)), right[:, None])], len(right))
        bounds = interval(bootstrap(statistic, len(right), resamples, seed))[:, 0]
        scores["interval"] = [round(float(bound), 4) for bound in bounds]
    return scores


def _majority(train: Sample, test: Sample) -> float:
    names, counts = np.unique(train.labels, return_counts=True)
    return round(100 * float((test.labels == names[np.argmax(counts)]).mean()), 4)


def _sample(input: Input, points: Points, labels: np.ndarray) -> Sample:
    rows, clips = input.of(points)
    chosen = labels[clips] != ""
    return Sample(rows[chosen], labels[clips][chosen], clips[chosen])


def _check(splits: Mapping[str, Embeddings]) -> None:
    train = splits["train"]
    for name, embeddings in splits.items():
        if set(embeddings.modalities) != set(train.modalities):
            raise UserError(
                f"The training clips have {', '.join(train.modalities)}, and the {name} clips "
                f"{', '.join(embeddings.modalities)}: embed all splits with the same model."
            )
        widths = {m: v.shape[1] for m, v in embeddings.vectors.items()}
        if widths != {m: v.shape[1] for m, v in train.vectors.items()}:
            raise UserError(f"The {name} rows have other widths than the training rows: embed all with the same model.")
        if not any(embeddings.labels or ()):
            raise UserError(f"No {name} clip has a label, and classes are what is asked for. Give labels (--labels).")
    if len({label for label in train.labels or () if label}) < 2:
        raise UserError("The training clips are of one class: there is nothing to tell apart.")
