"""Diagnostics of a batch: recomputed with loops, on rows that are missing or in another order, and in whole runs."""

import itertools
import json
import math
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from mover import reference
from mover.config import Config, ObjectiveConfig, TrainConfig
from mover.configs import load_config
from mover.losses import Objective, build_objective
from mover.train import diagnostics, trainer
from mover.train.batch_rows import first_right
from mover.train.collapse import Alarm, CollapseWatch
from mover.train.diagnostics import diagnose, gradient_norms, is_due
from mover.train.logging import read_log
from mover.train.trainer import train

NAMES = ("text", "video", "audio")
PAIRS = list(itertools.combinations(range(3), 2))


def objective_of(**settings: Any) -> Objective:
    return build_objective(ObjectiveConfig.model_validate({"preset": "mover", **settings}), NAMES)


def batch_of(size: int, *, width: int = 6, noise: float = 0.8, seed: int = 0) -> dict[str, torch.Tensor]:
    """Unit rows around a centre for each clip."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(size, width, generator=random)
    rows = {m: centres + noise * torch.randn(size, width, generator=random) for m in NAMES}
    return {m: torch.nn.functional.normalize(r, dim=1) for m, r in rows.items()}


def volume(*rows: torch.Tensor) -> float:
    group = torch.stack(rows).double()
    return math.sqrt(max(0.0, float(torch.linalg.det(group @ group.T))))


def partners(owner: Any, present: Any, p: int, q: int, i: int) -> list[int]:
    n = len(owner[q])
    return [j for j in range(n) if present[p][i] and present[q][j] and owner[p][i] == owner[q][j]]


def test_every_number_by_loops() -> None:
    size = 16
    z = batch_of(size, noise=0.7, seed=9)
    random = np.random.default_rng(1)
    owner = [np.concatenate([np.arange(6), random.permutation(np.arange(6, 16)) + (m == 2)]) for m in range(3)]
    present = [random.permutation(size) < there for there in (11, 15, 13)]
    objective = objective_of(transport={"epsilon": 0.2, "tol": 1e-6, "max_iter": 2000})
    found = diagnose(
        {m: torch.where(torch.from_numpy(present[i])[:, None], z[m], torch.nan) for i, m in enumerate(NAMES)},
        objective,
        present={m: torch.from_numpy(present[i]) for i, m in enumerate(NAMES)},
        owner={m: torch.from_numpy(owner[i]) for i, m in enumerate(NAMES)},
    )
    json.dumps(found, allow_nan=False)
    rows = [z[m] for m in NAMES]

    groups = [
        (i, j, h)
        for i in range(size)
        for j in partners(owner, present, 0, 1, i)
        for h in partners(owner, present, 0, 2, i)
    ]
    true = [volume(rows[0][i], rows[1][j], rows[2][h]) for i, j, h in groups]
    assert len(true) >= 3
    check_summary(found["volumes"]["positives"], true)
    every = [
        volume(rows[0][i], rows[1][j], rows[2][h])
        for i, j, h in itertools.product(range(size), repeat=3)
        if present[0][i] and present[1][j] and present[2][h] and len({owner[0][i], owner[1][j], owner[2][h]}) == 3
    ]  # drawn from these, so not far from their mean
    drawn = found["volumes"]["negatives"]
    assert drawn["mean"] == pytest.approx(np.mean(every), abs=4 * np.std(every) / math.sqrt(150))
    assert min(every) <= drawn["10%"] <= drawn["50%"] <= drawn["90%"] <= max(every)

    matched = [
        float(rows[p][i] @ rows[q][j]) for p, q in PAIRS for i in range(size) for j in partners(owner, present, p, q, i)
    ]
    check_summary(found["cosines"]["positives"], matched)
    others = [
        [
            float(rows[p][i] @ rows[q][j])
            for i, j in itertools.product(range(size), repeat=2)
            if present[p][i] and present[q][j] and owner[p][i] != owner[q][j]
        ]
        for p, q in PAIRS
    ]
    expected = np.mean([np.mean(values) for values in others])
    assert found["cosines"]["negatives"]["mean"] == pytest.approx(expected, abs=0.1)

    for m, name in enumerate(NAMES):
        there = np.flatnonzero(present[m])
        cosines = [float(rows[m][i] @ rows[m][j]) for i, j in itertools.permutations(there, 2)]
        assert found["modalities"][name]["rows"] == len(there)
        assert found["modalities"][name]["cosine"] == pytest.approx(np.mean(cosines), abs=1e-5)
        values = torch.linalg.svdvals(rows[m][torch.from_numpy(there)].double())
        shares = values / values.sum()
        rank = float((-(shares * shares.log()).sum()).exp())
        assert found["modalities"][name]["effective_rank"] == pytest.approx(rank, rel=1e-5)

    for p, q in PAIRS:
        check_plan(found["plans"][f"{NAMES[p]}-{NAMES[q]}"], rows, owner, present, p, q, 0.2)

    for name, (p, q) in {
        "T2V": (0, 1),
        "V2T": (1, 0),
        "T2A": (0, 2),
        "A2T": (2, 0),
        "V2A": (1, 2),
        "A2V": (2, 1),
    }.items():
        known = [(i, *partners(owner, present, p, q, i)) for i in range(size) if partners(owner, present, p, q, i)]
        right = [max(known, key=lambda pair: float(rows[p][i] @ rows[q][pair[1]]))[1] == j for i, j in known]
        assert found["clips"][name] == len(known)
        assert found["R@1"][name] == pytest.approx(100 * np.mean(right), rel=1e-5)
    table = np.array([[volume(rows[0][i], rows[1][j], rows[2][h]) for _, j, h in groups] for i, _, _ in groups])
    places = np.arange(len(groups))
    assert found["R@1"]["T2VA"] == pytest.approx(100 * (table.argmin(1) == places).mean(), rel=1e-5)
    assert found["R@1"]["VA2T"] == pytest.approx(100 * (table.argmin(0) == places).mean(), rel=1e-5)
    assert found["clips"]["T2VA"] == found["clips"]["VA2T"] == len(groups)
    assert found["R@1"]["T2V"] != found["R@1"]["V2T"] and found["R@1"]["T2VA"] != found["R@1"]["VA2T"]


def check_summary(found: dict[str, float], values: list[float]) -> None:
    expected = [np.mean(values), *(np.quantile(values, share) for share in (0.1, 0.5, 0.9))]
    assert list(found) == ["mean", "10%", "50%", "90%"]
    assert list(found.values()) == pytest.approx(expected, abs=2e-5)


def check_plan(found: dict[str, float], rows: Any, owner: Any, present: Any, p: int, q: int, epsilon: float) -> None:
    mine, yours = np.flatnonzero(present[p]), np.flatnonzero(present[q])
    x, y = rows[p][torch.from_numpy(mine)].double(), rows[q][torch.from_numpy(yours)].double()
    plan = reference.transport(x, y, epsilon=epsilon, tol=1e-9, max_iter=5000).plan.numpy()
    n, m = plan.shape
    entropy = -sum(value * math.log(value) for value in plan.ravel() if value > 0)
    assert (found["rows"], found["columns"]) == (n, m)
    assert found["entropy"] == pytest.approx((entropy - math.log(max(n, m))) / math.log(min(n, m)), abs=1e-4)
    right, on, possible = [], 0.0, 0.0
    for i, row in enumerate(mine):
        known = partners(owner, present, p, q, row)
        if known:
            j = int(np.flatnonzero(yours == known[0])[0])
            right.append(plan[i].argmax() == j)
            on += plan[i, j]
            possible += plan[i].sum()
    assert found["accuracy"] == pytest.approx(np.mean(right), rel=1e-5)
    assert found["mass"] == pytest.approx(on / possible, abs=1e-4)
    assert 0 <= found["marginal_error"] < 1e-4 and found["iterations"] >= 1


def test_the_ends_of_the_scales() -> None:
    one = torch.eye(6)[:1].expand(6, 6)
    found = diagnose(dict.fromkeys(NAMES, one), objective_of())
    assert found["volumes"]["positives"]["mean"] == found["volumes"]["negatives"]["mean"] == 0
    assert found["cosines"]["positives"]["mean"] == found["cosines"]["negatives"]["mean"] == 1
    assert found["modalities"]["text"] == {"rows": 6, "cosine": 1.0, "effective_rank": 1.0}
    for plan in found["plans"].values():
        assert (plan["entropy"], plan["accuracy"], plan["mass"]) == pytest.approx((1, 1 / 6, 1 / 6), abs=1e-5)
    assert found["R@1"] == dict.fromkeys(found["R@1"], pytest.approx(100 / 6, rel=1e-5))

    found = diagnose(dict.fromkeys(NAMES, torch.eye(6)), objective_of(transport={"epsilon": 0.05}))
    assert found["volumes"]["positives"]["mean"] == 0 and found["volumes"]["negatives"]["mean"] == 1
    assert found["modalities"]["text"] == {"rows": 6, "cosine": 0.0, "effective_rank": 6.0}
    for plan in found["plans"].values():
        assert (plan["entropy"], plan["accuracy"], plan["mass"]) == pytest.approx((0, 1, 1), abs=1e-5)
    joint = {name: found["R@1"].pop(name) for name in ("T2VA", "VA2T")}
    assert set(found["R@1"].values()) == {100.0}
    # two equal members of a group have the volume 0 with whatever anchor: all groups are tied
    assert joint == dict.fromkeys(joint, pytest.approx(100 / 6, rel=1e-5))


def test_the_order_of_the_rows_of_a_modality_does_not_matter_where_their_owners_are_known() -> None:
    z = batch_of(10)
    straight = diagnose(z, objective_of())
    order = {m: torch.randperm(10, generator=torch.Generator().manual_seed(i)) for i, m in enumerate(NAMES)}
    shuffled = diagnose({m: z[m][order[m]] for m in NAMES}, objective_of(), owner=order)
    assert shuffled["clips"] == straight["clips"]
    for part in ("R@1", "modalities"):
        assert flat(shuffled[part]) == pytest.approx(flat(straight[part]), rel=1e-4)
    for part in ("volumes", "cosines"):  # negatives are drawn by position
        assert flat(shuffled[part]["positives"]) == pytest.approx(flat(straight[part]["positives"]), rel=1e-4)
    for pair, plan in straight["plans"].items():
        assert (plan["accuracy"], plan["mass"], plan["entropy"]) == pytest.approx(
            tuple(shuffled["plans"][pair][key] for key in ("accuracy", "mass", "entropy")), abs=1e-3
        )


def flat(values: Any) -> list[float]:
    return [x for v in values.values() for x in flat(v)] if isinstance(values, dict) else [values]


@pytest.mark.parametrize("left", [0, 1])
def test_a_batch_that_lacks_what_is_asked_logs_null(left: int) -> None:
    z = batch_of(5)
    z["audio"][left:] = torch.nan
    present = {"audio": torch.arange(5) < left}
    found = diagnose(z, objective_of(), present=present)
    json.dumps(found, allow_nan=False)
    assert found["volumes"]["negatives"] is None or left == 1
    assert (found["volumes"]["positives"] is None) == (left == 0)
    assert found["modalities"]["audio"] == {"rows": left, "cosine": None, "effective_rank": None}
    assert found["plans"]["text-audio"] is None and found["plans"]["video-audio"] is None
    assert found["plans"]["text-video"]["accuracy"] is not None
    assert [found["R@1"][name] for name in ("T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T")] == [None] * 6
    assert found["R@1"]["T2V"] is not None and found["clips"]["T2A"] == left


def test_rows_without_a_partner_have_no_accuracy() -> None:
    z = batch_of(4)
    owner = {m: torch.arange(4) + 10 * i for i, m in enumerate(NAMES)}
    found = diagnose(z, objective_of(), owner=owner)
    json.dumps(found, allow_nan=False)
    assert found["volumes"]["positives"] is None and found["cosines"]["positives"] is None
    assert found["volumes"]["negatives"]["mean"] > 0
    for plan in found["plans"].values():
        assert plan["accuracy"] is None and plan["mass"] is None and plan["entropy"] > 0
    assert set(found["R@1"].values()) == {None}


def test_two_modalities_and_more_than_volumes_take() -> None:
    two = build_objective(ObjectiveConfig(preset="pairwise"), ("text", "audio"))
    z = batch_of(6)
    found = diagnose({m: z[m] for m in ("text", "audio")}, two)
    assert list(found["R@1"]) == ["T2A", "A2T"] and list(found["plans"]) == ["text-audio"]
    expected = [volume(z["text"][i], z["audio"][i]) for i in range(6)]
    assert found["volumes"]["positives"]["mean"] == pytest.approx(np.mean(expected), rel=1e-5)

    names = ("text", *(f"m{i}" for i in range(8)))
    many = build_objective(ObjectiveConfig(preset="pairwise"), names)
    found = diagnose(dict.fromkeys(names, z["text"]), many)
    assert found["volumes"] is None and len(found["plans"]) == 36 and len(found["R@1"]) == 72


def test_draws_are_keyed_and_leave_torch_alone() -> None:
    z, objective = batch_of(9), objective_of()
    state = torch.get_rng_state()
    found = [diagnose(z, objective, seed=seed, step=step) for seed, step in ((0, 5), (0, 5), (0, 6), (1, 5))]
    assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1]
    drawn = [values["volumes"]["negatives"]["mean"] for values in found]
    assert len(set(drawn)) == 3
    assert all(values["volumes"]["positives"] == found[0]["volumes"]["positives"] for values in found)


def test_the_plan_of_a_matching_is_that_of_the_rows_it_matches() -> None:
    z = batch_of(12, noise=0.4)
    order = {m: torch.cat([torch.arange(4), 4 + torch.randperm(8, generator=torch.Generator().manual_seed(i))])
             for i, m in enumerate(NAMES)}  # fmt: skip
    z = {m: z[m][order[m]] for m in NAMES}
    objective = objective_of(preset="mover-sets", matching={"epsilon": 0.07, "threshold": 0.3})
    found = diagnose(z, objective, owner=order, aligned=4)
    owner = [order[m][4:].numpy() for m in NAMES]
    rows = [z[m][4:] for m in NAMES]
    shares = []
    for p, q in PAIRS:
        plan = reference.transport(rows[p].double(), rows[q].double(), epsilon=0.07, tol=1e-9, max_iter=5000).plan
        right = np.mean([owner[q][plan[i].argmax()] == owner[p][i] for i in range(8)])
        assert found["plans"][f"{NAMES[p]}-{NAMES[q]}"]["accuracy"] == pytest.approx(right)
        assert found["plans"][f"{NAMES[p]}-{NAMES[q]}"]["rows"] == 8
        entropy = float(-torch.special.xlogy(plan, plan).sum())
        expected = (entropy - math.log(8)) / math.log(8)
        assert found["plans"][f"{NAMES[p]}-{NAMES[q]}"]["entropy"] == pytest.approx(expected, abs=2e-3)
        shares.append(8 * plan.numpy())
    kept = [
        (i, shares[0][i].argmax(), shares[1][i].argmax())
        for i in range(8)
        if all(s[i].max() >= 0.3 and s[:, s[i].argmax()].argmax() == i for s in shares[:2])
    ]
    assert kept
    right = np.mean([owner[0][i] == owner[1][j] == owner[2][h] for i, j, h in kept])
    assert found["matches"] == pytest.approx({"kept": len(kept) / 8, "right": right})
    everything = diagnose(z, objective_of(), owner=order, aligned=4)
    assert "matches" not in everything and everything["plans"]["text-video"]["rows"] == 12


def test_the_first_right_with_ties() -> None:
    scores = np.array([[3.0, 3.0, 1.0], [1.0, 2.0, 2.0], [5.0, 4.0, 3.0]])
    same = np.array([[True, False, False], [False, True, True], [False, False, False]])
    assert first_right(scores, same) == 0.75  # half, all, not asked
    assert first_right(scores, np.zeros((3, 3), dtype=bool)) is None


def lines(config: Config, kind: str = "diagnostics") -> list[dict[str, Any]]:
    return [line for line in read_log(config.folder / "log.jsonl") if line["kind"] == kind]


def changed(config: Config, settings: dict[str, Any], **values: Any) -> Config:
    names = {name.replace("__", "."): value for name, value in values.items()}
    return load_config("demo", {**settings, "output": str(config.output), **names})


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "draw_curves", lambda log, path, title: None)
    monkeypatch.setattr(trainer, "draw_plans", lambda plans, path, title: None)


def test_the_steps_that_are_diagnosed() -> None:
    for every, expected in {0: [], 1: [1, 2, 3, 4], 3: [3, 4], 4: [4], 50: [4]}.items():
        config = TrainConfig(steps=4, diagnose_every=every)
        assert [step for step in range(1, 5) if is_due(step, config)] == expected


def test_a_run_logs_them_and_nothing_else_changes(config: Config, settings: dict[str, Any]) -> None:
    few = {"train__steps": 2, "data__validation_split": "none"}
    runs = [changed(config, settings, name=f"every-{n}", train__diagnose_every=n, **few) for n in (0, 1)]
    for run in runs:
        train(run, console=Console(quiet=True))
    assert [[line["step"] for line in lines(run)] for run in runs] == [[], [1, 2]]
    assert [line["terms"] for line in lines(runs[0], "train")] == [line["terms"] for line in lines(runs[1], "train")]
    weights = [(run.folder / "checkpoints" / "last" / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    for line, step in zip(lines(runs[1]), lines(runs[1], "train"), strict=True):
        gradients = line["gradients"]
        assert list(gradients["towers"]) == list(NAMES)
        norms = [*gradients["towers"].values(), gradients["heads"], gradients["temperatures"]]
        assert math.hypot(*norms) == pytest.approx(step["grad_norm"], rel=1e-4)  # before clipping
        assert line["temperatures"] == step["temperatures"]
        assert line["volumes"]["positives"]["mean"] > 0


def test_a_resumed_run_logs_the_same(config: Config, settings: dict[str, Any]) -> None:
    options = {"train__diagnose_every": 1, "data__validation_split": "none"}
    whole = changed(config, settings, **options)
    train(whole, console=Console(quiet=True))
    cut = changed(config, settings, name="cut", **options)

    def stop_after_two(self: Any, done: int, loss: float, left: float) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Display, "step", stop_after_two)
        assert train(cut, console=Console(quiet=True)).step == 2
    torch.manual_seed(7)
    again = changed(config, settings, name="cut", **{**options, "train__diagnose_every": 2})  # may change on resume
    train(again, resume=True, console=Console(quiet=True))
    assert lines(cut) == [line for line in lines(whole) if line["step"] != 3]


def test_an_alarm_is_said_and_logged_and_a_resumed_run_knows_what_came_before(
    config: Config, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known: list[list[int]] = []

    class Watch(CollapseWatch):
        def replay(self, log: Any) -> None:
            known.append([line["step"] for line in log if line["kind"] == "diagnostics"])
            super().replay(log)

        def observe(self, line: Any) -> list[Alarm]:
            super().observe(line)  # takes the line as it is logged
            return [Alarm("collapse", "Step 2: look.")] if line["step"] == 2 else []

    monkeypatch.setattr(trainer, "CollapseWatch", Watch)
    options = {"train__diagnose_every": 1, "data__validation_split": "none"}
    train(changed(config, settings, train__steps=2, **options))
    train(changed(config, settings, train__steps=3, **options), resume=True)
    assert known == [[], [1, 2]]
    assert capsys.readouterr().out.count("Step 2: look.") == 1
    assert lines(config, "warning") == [
        {"kind": "warning", "step": 2, "symptom": "collapse", "message": "Step 2: look."}
    ]
    assert [line["step"] for line in lines(config)] == [1, 2, 3]


def test_the_gradients_of_what_does_not_learn_are_null() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.towers = torch.nn.ModuleDict({m: torch.nn.Linear(3, 2) for m in ("text", "audio")})
            self.heads = torch.nn.ModuleDict({m: torch.nn.Linear(2, 2) for m in ("text", "audio")})

    model: Any = Model()
    model.towers["audio"].requires_grad_(False)
    objective = build_objective(ObjectiveConfig(preset="pairwise", learn_temperature=False), ("text", "audio"))
    nothing = {"towers": {"text": None, "audio": None}, "heads": None, "temperatures": None}
    assert gradient_norms(model, objective) == nothing
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    sum(model.heads[m](model.towers[m](inputs)).square().sum() for m in ("text", "audio")).backward()
    found = gradient_norms(model, objective)
    assert found["towers"]["audio"] is None and found["temperatures"] is None
    expected = math.sqrt(sum(float(p.grad.square().sum()) for p in model.towers["text"].parameters()))
    assert found["towers"]["text"] == pytest.approx(expected, rel=1e-5)
    assert found["heads"] > 0


@pytest.mark.parametrize("every", [-1, 1.5, "often"])
def test_impossible_steps_between_diagnostics_are_refused(settings: dict[str, Any], every: Any) -> None:
    with pytest.raises(Exception, match="train.diagnose_every"):
        load_config("demo", {**settings, "train.diagnose_every": every})


def test_a_draw_that_finds_no_different_clips_is_none() -> None:
    assert diagnostics.DRAWS >= 64
    found = diagnose(batch_of(2), objective_of())  # three different clips cannot be drawn from two
    assert found["volumes"]["negatives"] is None and found["cosines"]["negatives"] is not None


def test_the_groups_of_a_pool_by_loops() -> None:
    config = ObjectiveConfig.model_validate(
        {"preset": "pairwise", "pool": 1.0, "matching": {"start": 0.0, "refresh": 1, "threshold": 0.8}}
    )
    objective = build_objective(config, NAMES, (20, 6))
    z = batch_of(20, noise=0.8)
    random = np.random.default_rng(0)
    clips = {m: torch.from_numpy(random.permutation(20)[:12]) for m in NAMES}  # any of the clips, in any order
    for owner in (dict.fromkeys(NAMES, torch.arange(20)), clips):
        rows = {m: z[m][owner[m]] for m in NAMES}
        objective(rows, step=0, aligned=0, owner=owner)
    pool: Any = objective.terms["pool"]
    kept = right = 0
    for m, name in enumerate(pool.modalities):
        for place in clips[name][2:].tolist():
            group = int(pool.group[m, place])
            if group >= 0:
                kept += 1
                right += pool.members[group].tolist() == [place] * 3
    assert 0 < right < kept < 30
    found = diagnose({m: z[m][clips[m]] for m in NAMES}, objective, owner=clips, aligned=2)
    assert found["pool"] == pytest.approx({"kept": kept / 30, "right": right / kept}, rel=1e-5)
    assert "matches" not in found and found["plans"]["text-video"]["rows"] == 10

    unmatched = build_objective(config, NAMES, (20, 6))
    found = diagnose({m: z[m][clips[m]] for m in NAMES}, unmatched, owner=clips, aligned=2)
    assert found["pool"] == {"kept": 0.0, "right": None}
