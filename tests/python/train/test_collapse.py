"""The alarm: raised by objectives that degenerate in fact, once for each episode, and by no healthy run."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from mover.config import Config
from mover.losses import build_objective
from mover.train.collapse import PATIENCE, Alarm, CollapseWatch, random_volume
from mover.train.diagnostics import diagnose

NAMES = ("text", "video", "audio")
STEPS, EVERY, SIZE, WIDTH = 120, 10, 32, 16
ALONE = {"preset": "mover-paper", "volume_contrastive": 0.0, "mover_warmup": 0.0}
"""The transport-weighted volume and nothing that drives embeddings apart."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config_of(objective: dict[str, Any], **rest: Any) -> Config:
    values = {
        "objective": objective, "train": {"steps": STEPS, "batch_size": SIZE, "diagnose_every": EVERY},
        "model": {"embed_dim": WIDTH}, "optimizer": {"lr": 0.05, "warmup_fraction": 0.0}, **rest,
    }  # fmt: skip
    return Config.model_validate(values)


def trained(config: Config, *, linear: bool, seed: int = 0) -> tuple[list[dict[str, Any]], list[tuple[int, Alarm]]]:
    """The diagnostics of a run of SIZE clips, and the alarms with their steps. linear: three noisy views of a latent,
    each with a linear map that learns; otherwise the embeddings themselves are what learns, from random ones."""
    random = torch.Generator().manual_seed(seed)
    objective = build_objective(config.objective, NAMES)
    latent = torch.randn(SIZE, 8, generator=random)
    views, weights = {}, {}
    for m in NAMES:
        view = latent @ torch.randn(8, 24, generator=random) + 0.5 * torch.randn(SIZE, 24, generator=random)
        start = torch.randn(24, WIDTH, generator=random) if linear else torch.randn(SIZE, WIDTH, generator=random)
        views[m], weights[m] = view if linear else torch.eye(SIZE), torch.nn.Parameter(start)
    optimizer = torch.optim.Adam([*weights.values(), *objective.parameters()], lr=config.optimizer.lr)
    watch, lines, alarms = CollapseWatch(config, objective), [], []
    for step in range(1, STEPS + 1):
        z = {m: normalize(views[m] @ weights[m], dim=1) for m in NAMES}
        terms = objective(z, (step - 1) / STEPS)
        if step % EVERY == 0:
            lines.append({"kind": "diagnostics", "step": step, **diagnose(z, objective, step=step)})
            alarms += [(step, alarm) for alarm in watch.observe(lines[-1])]
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
    return lines, alarms


@pytest.mark.parametrize("seed", [0, 1])
def test_the_mover_term_alone_collapses_and_is_told_once(seed: int) -> None:
    lines, alarms = trained(config_of(ALONE), linear=True, seed=seed)
    last = lines[-1]
    assert last["volumes"]["negatives"]["mean"] < 0.1 and last["volumes"]["positives"]["mean"] < 0.1
    assert max(last["R@1"].values()) < 20
    assert [alarm.symptom for _, alarm in alarms] == ["collapse"]
    step, alarm = alarms[0]
    assert step <= 8 * EVERY
    said = next(line for line in lines if line["step"] == step)["volumes"]
    for part in (
        f"Step {step}: the embeddings collapse",
        f"median volume of {said['negatives']['50%']:.2g}, true ones {said['positives']['50%']:.2g}",
        "(chance 3.1 %",
        "Lower objective.mover (1) or start it later with objective.mover_start (0)",
        "add objective.pairwise",
        "raise train.batch_size (32) or lower optimizer.lr (0.05).",
    ):
        assert part in alarm.message
    assert "\n" not in alarm.message


def test_rows_that_learn_freely_make_plans_sure_of_wrong_pairs() -> None:
    lines, alarms = trained(config_of(ALONE), linear=False)
    assert lines[-1]["volumes"]["negatives"]["mean"] > 0.7  # no collapse: each row has found a partner, a wrong one
    assert [alarm.symptom for _, alarm in alarms] == ["wrong plans"]
    message = alarms[0][1].message
    assert "the transport plans are sure of wrong pairs: their entropy is 0.0" in message
    assert "objective.mover_start (0)" in message and "batch_size" not in message


@pytest.mark.parametrize(
    ("preset", "linear"), [("mover", True), ("mover", False), ("mover-paper", True), ("gram", True), ("ot-loop", True)]
)
def test_healthy_runs_raise_none(preset: str, linear: bool) -> None:
    lines, alarms = trained(config_of({"preset": preset}), linear=linear)
    assert lines[-1]["R@1"]["T2VA"] > 90 and lines[-1]["volumes"]["positives"]["mean"] < 0.5
    assert alarms == []


def line_of(
    step: int, *, negatives: float | None = 0.9, positives: float | None = 0.3, recall: float = 60.0,
    alike: float = 0.1, entropy: float = 0.5, accuracy: float = 0.6,
) -> dict[str, Any]:  # fmt: skip
    names = ("T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T")
    volumes = {"negatives": {"50%": negatives}, "positives": {"50%": positives}}
    plan = {"columns": 32, "entropy": entropy, "accuracy": accuracy}
    return {
        "kind": "diagnostics", "step": step, "volumes": None if negatives is None else volumes,
        "modalities": {m: {"cosine": alike if m == "audio" else 0.1} for m in NAMES},
        "plans": {"text-video": plan, "text-audio": None}, "R@1": dict.fromkeys(names, recall),
        "clips": dict.fromkeys(names, 32),
    }  # fmt: skip


def watch_of(**objective: Any) -> CollapseWatch:
    aligned = 0.5 if objective.get("preset") == "mover-sets" else 1.0
    optimizer, data = {"warmup_fraction": 0.1, "lr": 0.05}, {"aligned_fraction": aligned}
    config = config_of({"preset": "mover", **objective}, optimizer=optimizer, data=data)
    return CollapseWatch(config, build_objective(config.objective, NAMES))


def symptoms(watch: CollapseWatch, lines: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(line["step"], alarm.symptom) for line in lines for alarm in watch.observe(line)]


BAD = {"negatives": 0.01, "positives": 0.005, "recall": 4.0}


def test_an_episode_is_told_once_and_a_second_again() -> None:
    assert PATIENCE == 3
    kinds = [BAD, BAD, {}, BAD, BAD, BAD, BAD, {}, {}, BAD, BAD, BAD, {}, {}, {}, BAD, BAD, BAD]
    lines = [line_of(20 + i, **kind) for i, kind in enumerate(kinds)]
    assert symptoms(watch_of(), lines) == [(25, "collapse"), (37, "collapse")]


def test_a_resumed_run_goes_on_with_the_episode() -> None:
    lines = [line_of(20 + i, **BAD) for i in range(6)]
    for cut in range(7):
        watch = watch_of()
        watch.replay([{"kind": "run", "step": 0}, {"kind": "train", "step": 20}, *lines[:cut]])
        assert symptoms(watch, lines[cut:]) == ([(22, "collapse")] if cut <= 2 else [])


def test_nothing_is_said_while_the_learning_rate_rises() -> None:
    lines = [line_of(step, **BAD) for step in range(1, 20)]
    assert symptoms(watch_of(), lines) == [(15, "collapse")]  # 12 steps of warm-up, then three


@pytest.mark.parametrize(
    "values",
    [
        {**BAD, "recall": 50.0},  # a narrow space in which all is found
        {**BAD, "negatives": 0.5},
        {**BAD, "positives": 0.5},
        {**BAD, "negatives": None},
        {"recall": 3.0},  # untrained
        {"alike": 0.99},
        {"entropy": 0.01},
        {"accuracy": 0.03},
    ],
)
def test_no_number_alone_raises_it(values: dict[str, Any]) -> None:
    watch = watch_of()
    assert symptoms(watch, [line_of(20, **values) for _ in range(5)]) == []


def test_recall_that_falls_to_less_than_half_counts_as_low() -> None:
    fallen = {**BAD, "recall": 25.0}
    watch = watch_of()
    assert symptoms(watch, [line_of(5, recall=60.0), *(line_of(20, **fallen) for _ in range(3))]) == [(20, "collapse")]
    watch = watch_of()
    assert symptoms(watch, [line_of(5, recall=40.0), *(line_of(20, **fallen) for _ in range(3))]) == []


def test_a_modality_that_is_one_point_is_named() -> None:
    watch = watch_of()
    alarms = [alarm for _ in range(4) for alarm in watch.observe(line_of(20, alike=0.98, recall=4.0))]
    assert [alarm.symptom for alarm in alarms] == ["one point"]
    assert "all embeddings of audio are nearly one" in alarms[0].message and "0.980" in alarms[0].message


def test_a_line_without_recall_or_volumes_is_no_symptom() -> None:
    line = line_of(20, negatives=None, alike=0.99)
    line |= {"R@1": dict.fromkeys(line["R@1"]), "plans": {"text-video": None}}
    line["modalities"]["text"]["cosine"] = None
    assert symptoms(watch_of(), [line] * 4) == []


@pytest.mark.parametrize(
    ("objective", "told", "not_told"),
    [
        ({"preset": "gram"}, ["Add objective.pairwise", "train.batch_size (32)"], ["objective.mover"]),
        ({"preset": "pairwise"}, ["Raise train.batch_size (32)"], ["add objective.pairwise", "objective.mover"]),
        ({"mover_start": 0.5}, ["Raise train.batch_size (32)"], ["objective.mover"]),  # it has not begun
        ({"preset": "ot-loop"}, ["Lower objective.ot_loop (", "objective.ot_start (0)"], ["objective.mover"]),
        ({"preset": "mover-sets"}, ["objective.matching.start (0.1)", "objective.matching.threshold (0.3)"], []),
    ],
)
def test_the_advice_names_what_the_run_has(objective: dict[str, Any], told: list[str], not_told: list[str]) -> None:
    watch = watch_of(**objective)
    alarms = [alarm for _ in range(3) for alarm in watch.observe(line_of(40, **BAD))]
    assert len(alarms) == 1
    assert all(text in alarms[0].message for text in told), alarms[0].message
    assert not any(text in alarms[0].message for text in not_told), alarms[0].message


def test_what_random_directions_span() -> None:
    random = torch.Generator().manual_seed(0)
    for k, width in ((2, 3), (3, 5), (4, 4)):
        rows = normalize(torch.randn(4000, k, width, generator=random, dtype=torch.float64), dim=-1)
        squares = torch.linalg.det(rows @ rows.mT)
        assert random_volume(k, width) == pytest.approx(float(squares.mean().sqrt()), rel=0.03)
    assert random_volume(4, 3) == 0
