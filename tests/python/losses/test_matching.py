"""Matches of rows in unknown order, and the contrast of those that are sure, against loops over the definitions."""

import pytest
import torch
from torch.nn.functional import normalize

from cases.operators import unit_rows
from cases.star import embeddings
from mover import reference
from mover.config import Config, MatchingConfig, ObjectiveConfig
from mover.configs import load_config
from mover.errors import UserError
from mover.losses import build_objective, matching
from mover.losses.confident import ConfidentContrast
from mover.losses.embeddings import check_embeddings
from mover.losses.matching import match_groups, matched_shares, unit_costs, units_of

NAMES = ("text", "video", "audio")
ALONE = [[0], [1], [2]]
ORDERS = {"text": [0, 1, 2, 3, 4, 5], "video": [3, 1, 5, 0, 2, 4], "audio": [4, 0, 1, 5, 3, 2]}


def shuffled(noise: float = 0.05, n: int = 6, d: int = 12):
    """Rows of n items, each modality in an order of its own, near enough to be told apart."""
    items = unit_rows(n, d, seed=3)
    rows = {
        name: normalize(items + noise * unit_rows(n, d, seed=4 + m), dim=1)[torch.tensor(ORDERS[name])]
        for m, name in enumerate(NAMES)
    }
    return {name: value.clone().requires_grad_() for name, value in rows.items()}


def shares_by_loops(x, y, config, x_there, y_there):
    """(n, n), one entry at a time."""
    cost = reference.cost(x, y)
    shares = torch.zeros_like(cost)
    rows, columns = x_there.nonzero().flatten().tolist(), y_there.nonzero().flatten().tolist()
    if config.by == "transport":
        plan = reference.sinkhorn(cost[rows][:, columns], epsilon=config.epsilon, tol=1e-12, max_iter=100000).plan
        for a, i in enumerate(rows):
            for b, j in enumerate(columns):
                shares[i, j] = plan[a, b] * len(rows)
        return shares
    kernel = (-cost / config.epsilon).exp()
    for i in rows:
        for j in columns:
            row, column = sum(kernel[i, c] for c in columns), sum(kernel[r, j] for r in rows)
            shares[i, j] = min(kernel[i, j] / row, kernel[i, j] / column)
    return shares


def groups_by_loops(z, config, there):
    """Row of the anchor to the rows it is matched with and the least share, for those that are kept."""
    n, found = len(z["text"]), {}
    plans = [shares_by_loops(z["text"], z[name], config, there["text"], there[name]) for name in NAMES[1:]]
    for i in range(n):
        group, least, kept = [i], 1.0, bool(there["text"][i])
        for plan in plans:
            j = max(range(n), key=lambda j, plan=plan: float(plan[i, j]))
            group.append(j)
            least = min(least, float(plan[i, j]))
            kept &= float(plan[i, j]) >= config.threshold
            if config.mutual:
                kept &= all(float(plan[r, j]) <= float(plan[i, j]) for r in range(n))
        if kept:
            found[i] = (group, least)
    return found


def everywhere(n: int = 6):
    return {name: torch.ones(n, dtype=torch.bool) for name in NAMES}


@pytest.mark.parametrize("by", ["transport", "softmax"])
@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("missing", [False, True])
def test_groups_against_loops(by, mutual, missing):
    z = {name: rows.detach() for name, rows in shuffled(noise=1.5).items()}
    there = everywhere()
    if missing:
        there["text"][2], there["audio"][0], there["audio"][5] = False, False, False
    config = MatchingConfig(by=by, mutual=mutual, epsilon=0.2, threshold=0.4)
    found = match_groups(check_embeddings(z, NAMES, there), config, ALONE)
    expected = groups_by_loops(z, config, there)
    assert 0 < len(expected) < 6  # the case keeps some and leaves some
    assert found.kept.nonzero().flatten().tolist() == sorted(expected)
    for i, (group, least) in expected.items():
        assert found.members[i].tolist() == group
        assert float(found.share[i]) == pytest.approx(least, abs=3e-3)  # the plan stops at an error of 1e-3


def test_a_plan_is_sure_of_more_than_softmax_is_and_no_less_right():
    """The balance settles what each row alone leaves open."""
    kept, right = {"transport": 0, "softmax": 0}, {"transport": 0, "softmax": 0}
    for seed in range(8):
        items = unit_rows(32, 16, seed=seed)
        views = [normalize(items + 0.8 * unit_rows(32, 16, seed=100 + seed + m), dim=1) for m in range(2)]
        clips = check_embeddings({"text": views[0], "video": views[1]}, ("text", "video"))
        for by in kept:
            found = match_groups(clips, MatchingConfig(by=by), [[0], [1]])
            kept[by] += int(found.kept.sum())
            right[by] += int((found.members[:, 0] == found.members[:, 1])[found.kept].sum())
    assert kept["transport"] > 1.1 * kept["softmax"] and right["transport"] > 1.1 * right["softmax"]
    assert right["transport"] > 0.9 * kept["transport"]


def test_shares_of_transport_sum_to_one_in_rows_and_columns():
    z = {name: rows.detach() for name, rows in shuffled(noise=2.0).items()}
    shares = matched_shares(check_embeddings(z, NAMES), MatchingConfig(epsilon=0.3), ALONE)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 6, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(shares.sum(-2), torch.ones(2, 6, dtype=torch.float64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("by", ["transport", "softmax"])
def test_the_term_is_the_contrast_of_the_groups_times_their_share(by):
    """Against the objective of rows put into order by hand, one of them unlike all others and left out."""
    z = shuffled()
    with torch.no_grad():
        z["video"][2] = -z["video"][2]  # of item 5
    config = ObjectiveConfig(preset="mover-sets", volume_contrastive=0.5, matching=MatchingConfig(by=by, threshold=0.5))
    objective = build_objective(config, NAMES).double()
    value = objective(z, aligned=0)["confident"]
    kept = [item for item in range(6) if item != 5]
    ordered = {name: torch.stack([z[name][ORDERS[name].index(item)] for item in kept]) for name in NAMES}
    terms = build_objective(config, NAMES).double()(ordered)
    expected = 5 / 6 * (0.5 * terms["volume_contrastive"] + terms["pairwise"])
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    of_value = torch.autograd.grad(value, list(z.values()), retain_graph=True)
    of_expected = torch.autograd.grad(expected, list(z.values()))
    for one, other in zip(of_value, of_expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_contrasts_are_of_the_aligned_rows_and_transport_of_all():
    z = embeddings(NAMES, 8, 10)
    config = ObjectiveConfig(preset="mover", confident=0.7, ot_loop=0.1, matching=MatchingConfig(threshold=0.0))
    terms = build_objective(config, NAMES).double()(z, aligned=3)
    few = build_objective(config, NAMES).double()({name: rows[:3] for name, rows in z.items()})
    many = build_objective(config, NAMES).double()(z)
    for name in ("volume_contrastive", "pairwise"):
        torch.testing.assert_close(terms[name], few[name])
    for name in ("mover", "ot_loop"):
        torch.testing.assert_close(terms[name], many[name])
    weights = {"mover": 1, "volume_contrastive": 1, "pairwise": 1, "ot_loop": 0.1, "confident": 0.7}
    torch.testing.assert_close(terms["total"], sum(w * terms[name] for name, w in weights.items()))
    assert float(terms["confident"].detach()) > 0 and float(many["confident"].detach()) == 0


def test_the_order_of_the_rows_that_are_not_aligned_makes_no_difference():
    z = {name: rows.detach() for name, rows in shuffled(noise=0.6, n=6).items()}
    known = embeddings(NAMES, 4, 12)
    objective = build_objective(ObjectiveConfig(preset="mover-sets"), NAMES).double()
    values = []
    for step in range(4):
        orders = {
            name: torch.randperm(6, generator=torch.Generator().manual_seed(10 * step + m))
            for m, name in enumerate(NAMES)
        }
        rows = {name: torch.cat([known[name].detach(), z[name][orders[name]]]) for name in NAMES}
        values.append(float(objective(rows, aligned=4)["total"].detach()))
    assert values == pytest.approx([values[0]] * 4, abs=1e-12)


def test_rows_that_are_not_there_have_no_gradient_and_no_influence():
    z = shuffled(noise=0.3)
    present = {"text": torch.tensor([True] * 5 + [False]), "audio": torch.tensor([False] + [True] * 5)}
    objective = build_objective(ObjectiveConfig(preset="mover-sets"), NAMES).double()
    value = objective(z, present=present, aligned=0)["confident"]
    value.backward()
    assert not z["text"].grad[5].any() and not z["audio"].grad[0].any()
    hostile = {name: rows.detach().clone() for name, rows in z.items()}
    hostile["text"][5], hostile["audio"][0] = torch.nan, torch.inf
    assert float(objective(hostile, present=present, aligned=0)["confident"]) == float(value.detach())


@pytest.mark.parametrize("aligned", [5, 6])
def test_too_few_rows_to_match_are_0_with_gradient_0(aligned):
    z = shuffled()
    value = build_objective(ObjectiveConfig(preset="mover-sets"), NAMES).double()(z, aligned=aligned)["confident"]
    assert float(value.detach()) == 0
    assert not any(g.any() for g in torch.autograd.grad(value, list(z.values())))


def test_a_modality_that_no_unaligned_row_has_makes_no_groups():
    z, present = shuffled(), {"audio": torch.tensor([True, True, False, False, False, False])}
    value = build_objective(ObjectiveConfig(preset="mover-sets"), NAMES).double()(z, present=present, aligned=2)
    assert float(value["confident"].detach()) == 0 and bool(value["total"].isfinite())


def test_matches_start_late_and_rise():
    config = ObjectiveConfig(preset="mover-sets", matching=MatchingConfig(start=0.5, warmup=0.2))
    objective = build_objective(config, NAMES)
    weights = [objective.weight("confident", progress) for progress in (0.0, 0.5, 0.6, 0.7, 1.0)]
    assert weights == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.0])
    assert set(objective(embeddings(NAMES, 6, 8), 0.4, aligned=3)) == {"volume_contrastive", "pairwise", "total"}


def test_no_parameters_of_its_own():
    names = dict(build_objective(ObjectiveConfig(preset="mover-sets"), NAMES).named_parameters())
    assert set(names) == {"terms.volume_contrastive.temperature.log", "terms.pairwise.temperature.log"}


def test_what_is_refused():
    with pytest.raises(UserError, match="there is no contrast. Set one of objective.volume_contrastive, pairwise"):
        build_objective(ObjectiveConfig(preset="mover-sets", volume_contrastive=0, pairwise=0), NAMES)
    with pytest.raises(UserError, match="'smell'"):
        ConfidentContrast(NAMES, "smell", MatchingConfig(), [])
    with pytest.raises(UserError, match=r"objective.matching.by: expected .*transport.*softmax.*got 'nearest'"):
        load_config("demo", {"objective.matching.by": "nearest"})
    with pytest.raises(UserError, match="objective.preset: mover-sets: it learns from clips that are not aligned"):
        load_config("demo", {"objective.preset": "mover-sets"})
    kept = load_config("demo", {"objective.preset": "mover-sets", "objective.confident": 0})
    assert isinstance(kept, Config) and kept.data.aligned_fraction == 1


def test_units():
    assert units_of(NAMES) == [[0], [1], [2]]
    assert units_of(NAMES, ("video", "audio")) == [[0], [1, 2]]
    assert units_of(("a", "b", "c", "d"), ("d", "a")) == [[0, 3], [1], [2]]


@pytest.mark.parametrize("by", ["transport", "softmax"])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("together", [("video", "audio"), ("text", "audio")])
def test_modalities_that_are_together_are_matched_as_one(by, missing, together):
    """Against a plan of the mean cost over the pairs of modalities that both rows have, one entry at a time."""
    n, z = 6, embeddings(NAMES, 6, 8)
    there = everywhere()
    if missing:
        there["audio"][1], there["video"][4] = False, False
        if "text" in together:
            there["text"][2] = False
    units = units_of(NAMES, together)
    costs, first, second = torch.full((n, n), 4.0, dtype=torch.float64), [False] * n, [False] * n
    for i in range(n):
        for j in range(n):
            pairs = [
                ((z[NAMES[p]][i] - z[NAMES[q]][j]) ** 2).sum()
                for p in units[0]
                for q in units[1]
                if there[NAMES[p]][i] and there[NAMES[q]][j]
            ]
            if pairs:
                costs[i, j] = sum(pairs) / len(pairs)
        first[i] = any(bool(there[NAMES[p]][i]) for p in units[0])
        second[i] = any(bool(there[NAMES[q]][i]) for q in units[1])
    clips = check_embeddings(z, NAMES, there)
    torch.testing.assert_close(unit_costs(clips, units)[0], costs)
    config = MatchingConfig(by=by, epsilon=0.4)
    shares = matched_shares(clips, config, units)[0]
    if by == "transport":
        a, b = (torch.tensor(flags, dtype=torch.float64) / sum(flags) for flags in (first, second))
        plan = reference.sinkhorn(costs.detach(), a, b, epsilon=0.4, tol=1e-12, max_iter=100000).plan
        expected = plan * sum(first)
    else:
        both = torch.tensor(first).unsqueeze(1) & torch.tensor(second)
        kernel = torch.where(both, (-costs / 0.4).exp(), 0)
        by_row, by_column = (kernel / kernel.sum(d, keepdim=True).clamp(min=1e-300) for d in (1, 0))
        expected = torch.where(both, torch.minimum(by_row, by_column), 0)
    torch.testing.assert_close(shares.detach(), expected.detach(), atol=3e-3, rtol=0)
    members = match_groups(clips, config, units).members
    assert members[:, units[0]].tolist() == [[i] * len(units[0]) for i in range(n)]
    assert all(members[:, m].tolist() == members[:, units[1][0]].tolist() for m in units[1])


def test_captions_in_unknown_order_are_matched_to_whole_clips():
    """Neither picture nor sound tells clips apart; both together do."""
    z = {"text": [], "video": [], "audio": []}
    for shape in range(3):
        for sound in range(3):
            z["video"].append(torch.eye(6, dtype=torch.float64)[shape])
            z["audio"].append(torch.eye(6, dtype=torch.float64)[3 + sound])
            z["text"].append(normalize(z["video"][-1] + z["audio"][-1], dim=0))
    order = torch.tensor([4, 2, 8, 0, 7, 1, 3, 6, 5])
    rows = {name: torch.stack(value) for name, value in z.items()}
    rows["text"] = rows["text"][order]
    clips, config = check_embeddings(rows, NAMES), MatchingConfig(epsilon=0.1, threshold=0.5)
    found = match_groups(clips, config, units_of(NAMES, ("video", "audio")))
    assert bool(found.kept.all()) and found.members[:, 1].tolist() == found.members[:, 2].tolist() == order.tolist()
    assert not bool(match_groups(clips, config, ALONE).kept.any())


def test_pairs_that_are_together_are_contrasted_in_every_row():
    z = embeddings(NAMES, 7, 9)
    objective = build_objective(ObjectiveConfig(preset="pairwise"), NAMES).double()
    value = objective(z, aligned=3, together=("video", "audio"))["pairwise"]
    pair = {}
    for p, q in (("text", "video"), ("text", "audio"), ("video", "audio")):
        count = 7 if "text" not in (p, q) else 3
        rows = {name: z[name][:count] for name in (p, q)}
        pair[p, q] = build_objective(ObjectiveConfig(preset="pairwise", anchor=p), (p, q)).double()(rows)["pairwise"]
    torch.testing.assert_close(value, sum(pair.values()) / 3, rtol=1e-6, atol=1e-7)
    gradients = torch.autograd.grad(value, list(z.values()))
    assert not gradients[0][3:].any() and all(g[3:].abs().sum(1).min() > 0 for g in gradients[1:])
    alone = objective(z, aligned=1, together=("video", "audio"))["pairwise"]  # one aligned row has nothing to contrast
    torch.testing.assert_close(alone, pair["video", "audio"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("by", ["transport", "softmax"])
def test_the_plans_of_an_objective_with_matches_are_those_it_matches_by(by):
    z = {name: rows.detach() for name, rows in shuffled(noise=0.5).items()}
    config = ObjectiveConfig(preset="mover-sets", anchor="audio", matching=MatchingConfig(by=by))
    objective = build_objective(config, NAMES).double()
    names = ("audio", "text", "video")
    clips = check_embeddings(z, names)
    plans = objective.plans(z)
    assert list(plans) == ["audio-text", "audio-video"]
    torch.testing.assert_close(6 * torch.stack(list(plans.values())), matched_shares(clips, config.matching, ALONE))
    ((name, plan),) = objective.plans(z, together=("text", "video")).items()
    assert name == "audio-text+video"
    torch.testing.assert_close(6 * plan, matched_shares(clips, config.matching, [[0], [1, 2]])[0])
    nothing = torch.zeros(6, dtype=torch.bool)
    assert list(objective.plans(z, {"text": nothing})) == ["audio-video"]
    assert list(objective.plans(z, {"audio": nothing})) == ["text-video"]  # without the anchor, those of pairs


def test_many_rows_are_matched_one_unit_after_the_other(monkeypatch):
    z = {name: rows.detach() for name, rows in shuffled(noise=1.5).items()}
    clips, config = check_embeddings(z, NAMES), MatchingConfig(epsilon=0.2, threshold=0.4)
    together = match_groups(clips, config, ALONE)
    monkeypatch.setattr(matching, "AT_ONCE", 5)
    for one, other in zip(match_groups(clips, config, ALONE), together, strict=True):
        assert torch.equal(one, other)


def test_a_group_may_lack_one_of_the_modalities_that_are_together():
    """What it lacks takes no part in the contrast, like a modality that an aligned clip lacks."""
    z = {name: rows.detach() for name, rows in embeddings(NAMES, 6, 12).items()}
    order = torch.tensor([2, 0, 1, 5, 3, 4])
    z["text"] = z["text"][order]
    there = {"audio": torch.tensor([True, False, True, True, True, True])}
    config = ObjectiveConfig(preset="mover-sets", matching=MatchingConfig(epsilon=0.02, threshold=0.5))
    objective = build_objective(config, NAMES).double()
    value = objective(z, present=there, aligned=0, together=("video", "audio"))
    ordered = {name: rows if name == "text" else rows[order] for name, rows in z.items()}
    plain = build_objective(config, NAMES).double()(ordered, present={"audio": there["audio"][order]})
    expected = plain["volume_contrastive"] + plain["pairwise"]
    torch.testing.assert_close(value["confident"], expected)
    hostile = {**z, "audio": torch.where(there["audio"].unsqueeze(1), z["audio"], torch.nan)}
    again = objective(hostile, present=there, aligned=0, together=("video", "audio"))
    assert float(again["confident"].detach()) == float(value["confident"].detach())
