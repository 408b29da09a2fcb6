"""The alarm of a training run: embeddings that collapse, a modality that is one point, plans that are sure and wrong.

It reads the diagnostics of the run in their order and nothing else, so that a resumed run, which reads those of its log
first, says the same. docs/diagnostics.md has the conditions in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mover.config import Config
from mover.evaluate.directions import Direction, directions
from mover.losses import Objective
from mover.presets.preset import OF_MATCHES

PATIENCE = 3
"""So many diagnostics in a row begin an episode, and so many without the symptom end it."""
LEAST_VOLUME = 0.3
"""Volumes of random groups below this share of what random directions span are small."""
MOST_ALIKE = 0.95
"""Mean cosine of the rows of a modality from which on they count as one point."""
SURE = 0.1
"""Entropy of plans below which they count as sure of their pairs."""
LEAST_SKILL, LOST = 0.1, 0.5
"""Recall@1 is low below this skill, 0 at chance and 1 where all is right; and below this share of the run's best."""

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Alarm:
    """symptom: "collapse", "one point" or "wrong plans". message: what was measured, and what to try, for people."""

    symptom: str
    message: str


@dataclass
class _Episode:
    """Counts of lines in a row with and without a symptom, and whether an alarm has been raised since it began."""

    bad: int = 0
    good: int = 0
    raised: bool = False

    def begins(self, bad: bool) -> bool:
        """Count a line; whether it is the one at which to raise the alarm."""
        self.bad, self.good = (self.bad + 1, 0) if bad else (0, self.good + 1)
        if self.good >= PATIENCE:
            self.raised = False
        if self.bad < PATIENCE or self.raised:
            return False
        self.raised = True
        return True


class CollapseWatch:
    """Tells, once for each episode, when the embeddings of a run degenerate. `observe` takes the lines in order."""

    def __init__(self, config: Config, objective: Objective) -> None:
        self._config, self._objective = config, objective
        every = directions(config.modalities, config.objective.anchor)
        self._pairs = [direction for direction in every if len(direction.others) == 1]
        symptoms: tuple[Callable[[Line], Alarm | None], ...] = (self._collapse, self._one_point, self._wrong_plans)
        self._symptoms = [(symptom, _Episode()) for symptom in symptoms]
        self._best: dict[str, float] = {}

    def replay(self, log: Sequence[Line]) -> None:
        """Observe the diagnostics among the lines of a log, silently."""
        for line in log:
            if line.get("kind") == "diagnostics":
                self.observe(line)

    def observe(self, line: Line) -> list[Alarm]:
        """What is to be said at this line of diagnostics, at most one alarm: of two that begin at once, the first.

        Lines of the warm-up of the learning rate raise none.
        """
        found: list[Alarm] = []
        for symptom, episode in self._symptoms:
            alarm = symptom(line)
            warming = line["step"] <= self._config.optimizer.warmup_fraction * self._config.train.steps
            if episode.begins(alarm is not None and not warming) and alarm is not None and not found:
                found.append(alarm)
        return found

    def _collapse(self, line: Line) -> Alarm | None:
        """Volumes of true and of random groups are small, while Recall@1 is low."""
        low = self._low(line, "all", self._pairs)
        volumes = line.get("volumes") or {}
        middles = [(volumes.get(name) or {}).get("50%") for name in ("negatives", "positives")]
        bound = LEAST_VOLUME * random_volume(len(self._config.modalities), self._config.model.embed_dim)
        if low is None or any(value is None or value >= bound for value in middles):
            return None
        return Alarm(
            "collapse",
            f"Step {line['step']}: the embeddings collapse: groups of different clips span a median volume of "
            f"{middles[0]:.2g}, true ones {middles[1]:.2g}, and {low}. {self._advice(line['step'], spread=True)}",
        )

    def _one_point(self, line: Line) -> Alarm | None:
        """The rows of a modality have a mean cosine near 1, while Recall@1 of its directions is low."""
        found = None
        for name, values in line["modalities"].items():
            low = self._low(line, name, [d for d in self._pairs if name in (*d.query, *d.target)])
            cosine = values["cosine"]
            if low is None or cosine is None or cosine < MOST_ALIKE or found is not None:
                continue
            found = Alarm(
                "one point",
                f"Step {line['step']}: all embeddings of {name} are nearly one: those of two clips have a mean cosine "
                f"of {cosine:.3f}, and {low}. {self._advice(line['step'], spread=True)}",
            )
        return found

    def _wrong_plans(self, line: Line) -> Alarm | None:
        """Plans that are trained on have little entropy, and are right about as often as chance."""
        plans = [plan for plan in line["plans"].values() if plan is not None and plan["accuracy"] is not None]
        if not plans or not self._of_transport(line["step"]):
            return None
        entropy, accuracy, chance = (
            sum(values) / len(plans)
            for values in zip(*((p["entropy"], p["accuracy"], 1 / p["columns"]) for p in plans), strict=True)
        )
        if entropy >= SURE or _skill(accuracy, chance) >= LEAST_SKILL:
            return None
        return Alarm(
            "wrong plans",
            f"Step {line['step']}: the transport plans are sure of wrong pairs: their entropy is {entropy:.2g} of 1, "
            f"and {100 * accuracy:.1f} % of their rows are right (chance {100 * chance:.1f} %). "
            f"{self._advice(line['step'], spread=False)}",
        )

    def _low(self, line: Line, name: str, among: Sequence[Direction]) -> str | None:
        """Recall@1 within the batch in words, if it is near chance or far below the best so far under this name."""
        there = [
            (line["R@1"][d.name] / 100, 1 / line["clips"][d.name]) for d in among if line["R@1"][d.name] is not None
        ]
        if not there:
            return None
        recall, chance = (sum(values) / len(there) for values in zip(*there, strict=True))
        skill = _skill(recall, chance)
        best = self._best[name] = max(skill, self._best.get(name, 0.0))
        if skill >= LEAST_SKILL and skill >= LOST * best:
            return None
        words = f"R@1 within the batch is {100 * recall:.1f} % (chance {100 * chance:.1f} %"
        return words + (
            ")" if best < 2 * LEAST_SKILL else f"; its best was {100 * (chance + best * (1 - chance)):.1f} %)"
        )

    def _of_transport(self, step: int) -> list[str]:
        """The terms that rest on plans and have a weight at this step."""
        names = ["mover", "ot_loop", "ot_barycenter", *OF_MATCHES]
        if self._config.objective.positives != "paired":
            names.append("volume_contrastive")
        return [name for name in names if self._objective.weight(name, step / self._config.train.steps) > 0]

    def _advice(self, step: int, *, spread: bool) -> str:
        """What to try, by the terms that there are; spread: whether it is embeddings that are to be driven apart."""
        config, weights = self._config, self._objective.weights
        starts = {"mover": "mover_start", "ot_loop": "ot_start", "ot_barycenter": "ot_start"}
        tries = []
        of_transport = self._of_transport(step)
        for name, start in starts.items():
            if name in of_transport:
                tries.append(
                    f"lower objective.{name} ({weights[name]:g}) or start it later with objective.{start} "
                    f"({getattr(config.objective, start):g})"
                )
        if any(name in of_transport for name in OF_MATCHES):
            matching = config.objective.matching
            tries.append(
                f"start the matches later with objective.matching.start ({matching.start:g}) or keep fewer with "
                f"objective.matching.threshold ({matching.threshold:g})"
            )
        if "volume_contrastive" in of_transport:
            tries.append("set objective.positives to paired")
        if "pairwise" not in weights:
            tries.append("add objective.pairwise, which tells apart what a volume cannot")
        if spread:
            tries.append(
                f"raise train.batch_size ({config.train.batch_size}) or lower optimizer.lr ({config.optimizer.lr:g})"
            )
        text = "; ".join(tries)
        return f"{text[0].upper()}{text[1:]}." if text else ""


def random_volume(k: int, width: int) -> float:
    """What k independent random directions in `width` dimensions span: the root of their mean squared volume."""
    return math.sqrt(math.prod(max(0, width - i) / width for i in range(k)))


def _skill(share: float, chance: float) -> float:
    """0 at chance, 1 where all is right."""
    return (share - chance) / (1 - chance) if chance < 1 else 0.0
