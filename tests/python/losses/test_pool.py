"""The pool: what it keeps, what one plan over all of it matches, and the contrast of live rows with kept ones."""

import pytest
import torch
from torch.nn.functional import normalize

from cases.operators import unit_rows
from cases.star import embeddings
from mover.config import MatchingConfig, ObjectiveConfig
from mover.configs import load_config
from mover.errors import UserError
from mover.losses import build_objective
from mover.losses.pool import check_pool

NAMES = ("text", "video", "audio")
CLIPS, WIDTH = 12, 8


def items(noise=0.05):
    """Rows of CLIPS items in three modalities, float64."""
    common = unit_rows(CLIPS, WIDTH, seed=1)
    return {
        name: normalize(common + noise * unit_rows(CLIPS, WIDTH, seed=2 + m), dim=1) for m, name in enumerate(NAMES)
    }


def pooled(**settings):
    matching = MatchingConfig(**{"refresh": 1, "start": 0, **settings})
    config = ObjectiveConfig(preset="pairwise", pool=1.0, matching=matching)
    return build_objective(config, NAMES, (CLIPS, WIDTH)).double()


def everyone(places):
    """The same places in every modality."""
    return {name: list(places) for name in NAMES}


def batch(rows, places):
    """The rows of these places, each modality its own, as leaves; and the places."""
    z = {name: rows[name][places[name]].clone().requires_grad_() for name in NAMES}
    return z, {name: torch.tensor(places[name]) for name in NAMES}


def fill(objective, rows, progress=1.0):
    """Everything into the pool, half of each modality at a time, no partner in its batch."""
    half = CLIPS // 2
    for first, second in ((range(half), range(half, CLIPS)), (range(half, CLIPS), range(half))):
        places = {"text": list(first), "video": list(second), "audio": list(second)}
        z, owner = batch(rows, places)
        objective(z, progress, step=1, aligned=0, owner=owner)


def test_partners_that_are_never_in_one_batch_are_found():
    objective = pooled(refresh=10)
    fill(objective, items())
    pool = objective.terms["pool"]
    assert bool(pool.filled.all()) and bool((pool.group == -1).all())
    pool.match()
    assert pool.group.tolist() == [list(range(CLIPS))] * 3
    assert pool.members.tolist() == [[i] * 3 for i in range(CLIPS)]


def test_the_term_is_the_contrast_with_the_kept_rows_of_the_group():
    rows, objective = items(), pooled(refresh=10)
    fill(objective, rows)
    objective.terms["pool"].match()
    objective.terms["pool"].group[1, 9] = -1  # one row of video without a group
    places = {"text": [0, 4, 7, 2], "video": [9, 1, 0, 6], "audio": [3, 11, 5, 8]}
    z, owner = batch(items(noise=0.2), places)
    value = objective(z, step=1, aligned=0, owner=owner)["pool"]
    kept = objective.terms["pool"].rows  # of text, video, audio; those of the batch are in it
    for m, name in enumerate(NAMES):
        assert torch.equal(kept[m][places[name]], z[name].detach())
    plain = build_objective(ObjectiveConfig(preset="pairwise"), NAMES).double()
    total = 0.0
    for name in NAMES:
        chosen = [i for i, place in enumerate(places[name]) if (name, place) != ("video", 9)]
        group = {
            other: z[name][chosen] if other == name else kept[n][[places[name][i] for i in chosen]]
            for n, other in enumerate(NAMES)
        }
        total = total + len(chosen) / 4 * plain(group)["pairwise"] / 3
    torch.testing.assert_close(value, total)
    for one, other in zip(*(torch.autograd.grad(v, list(z.values())) for v in (value, total)), strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.autograd.grad(objective(z, step=1, aligned=0, owner=owner)["pool"], z["video"])[0][0].any()


def test_the_plan_is_made_anew_every_refresh_steps_and_not_before_the_start():
    rows, objective = items(), pooled(refresh=3, start=0.5)
    fill(objective, rows)
    pool = objective.terms["pool"]
    z, owner = batch(rows, everyone(range(4)))
    early = objective(z, 0.4, step=3, aligned=0, owner=owner)
    assert "pool" not in early and bool((pool.group == -1).all())
    objective(z, 0.6, step=4, aligned=0, owner=owner)
    assert bool((pool.group == -1).all())
    objective(z, 0.6, step=6, aligned=0, owner=owner)
    assert bool((pool.group >= 0).all())


def test_aligned_rows_are_not_in_the_pool():
    objective = pooled()
    z, owner = batch(items(), everyone(range(8)))
    objective(z, step=1, aligned=5, owner=owner)
    assert objective.terms["pool"].filled.nonzero()[:, 1].tolist() == [5, 6, 7] * 3


def test_rows_that_are_not_there():
    objective, rows = pooled(refresh=10), items()
    places = everyone(range(CLIPS))
    z, owner = batch(rows, places)
    there = {"audio": torch.arange(CLIPS) >= 3, "text": torch.arange(CLIPS) != 5}
    hostile = {name: value.detach().clone() for name, value in z.items()}
    hostile["audio"][:3], hostile["text"][5] = torch.nan, torch.inf
    objective(hostile, step=10, present=there, aligned=0, owner=owner)
    pool = objective.terms["pool"]
    assert not pool.filled[2, :3].any() and not pool.filled[0, 5] and bool(pool.rows.isfinite().all())
    whole = [3, 4, 6, 7, 8, 9, 10, 11]
    assert pool.group[0, whole].tolist() == whole and int(pool.group[0, 5]) == -1
    assert bool((pool.group[2, :3] == -1).all())
    value = objective(hostile, step=11, present=there, aligned=0, owner=owner)["pool"]
    assert bool(value.isfinite()) and float(value.detach()) > 0


def test_of_a_matching_that_is_not_mutual_a_row_goes_with_its_surest_group():
    objective = pooled(mutual=False, threshold=0.2, refresh=10)
    rows = items()
    rows["text"][1] = normalize(rows["text"][0] + 0.3 * rows["text"][1], dim=0)  # two texts for the clip of one
    fill(objective, rows)
    pool = objective.terms["pool"]
    pool.match()
    assert int(pool.group[1, 0]) == 0
    assert int((pool.group[0] >= 0).sum()) >= 11


def test_the_state_holds_the_pool():
    rows, objective = items(), pooled(refresh=10)
    fill(objective, rows)
    objective.terms["pool"].match()
    other = pooled(refresh=10)
    other.load_state_dict(objective.state_dict())
    z, owner = batch(items(noise=0.3), everyone([1, 5, 8, 2]))
    values = [o(z, step=1, aligned=0, owner=owner)["pool"].detach() for o in (objective, other)]
    assert torch.equal(*values)
    assert {n for n, _ in objective.named_parameters()} == {"terms.pairwise.temperature.log"}


def test_modalities_that_are_together_share_their_match():
    objective = pooled(refresh=10)
    fill(objective, items(noise=0.5))
    pool = objective.terms["pool"]
    pool.match(together=("video", "audio"))
    assert torch.equal(pool.members[pool.group[0] >= 0][:, 1], pool.members[pool.group[0] >= 0][:, 2])


def test_a_group_of_the_pool_may_lack_one_of_the_modalities_that_are_together():
    objective, rows = pooled(refresh=10), items()
    z, owner = batch(rows, everyone(range(CLIPS)))
    there = {"audio": torch.arange(CLIPS) != 4}
    about = {"present": there, "aligned": 0, "owner": owner, "together": ("video", "audio")}
    objective(z, step=10, **about)
    value = objective(z, step=11, **about)["pool"]
    plain = build_objective(ObjectiveConfig(preset="pairwise"), NAMES).double()
    kept = {name: tensor.detach() for name, tensor in z.items()}
    terms = [plain({**kept, name: z[name]}, present=there)["pairwise"] for name in NAMES[:2]]
    has = there["audio"]
    terms.append(plain({name: rows[has] for name, rows in {**kept, "audio": z["audio"]}.items()})["pairwise"])
    torch.testing.assert_close(value, sum(terms) / 3)


def test_what_is_refused():
    with pytest.raises(UserError, match=r"objective.pool matches 40,000 clips in one plan, about 19 GiB, more than"):
        check_pool(40000, MatchingConfig())
    check_pool(25000, MatchingConfig())
    check_pool(18000, MatchingConfig(by="softmax"))
    check_pool(20000, MatchingConfig(mass=0.5))
    with pytest.raises(UserError, match="25,000 clips in one plan, about 12 GiB"):
        check_pool(25000, MatchingConfig(mass=0.5))
    with pytest.raises(UserError, match="25,000 clips in one plan, about 15 GiB"):
        check_pool(25000, MatchingConfig(by="softmax"))
    with pytest.raises(UserError, match="objective.pool: it learns from clips that are not aligned"):
        load_config("demo", {"objective.pool": 1})
    with pytest.raises(ValueError, match="Expected the number of clips"):
        build_objective(ObjectiveConfig(preset="pairwise", pool=1.0), NAMES)
    with pytest.raises(ValueError, match="Expected `owner`"):
        pooled()(embeddings(NAMES, 4, WIDTH), aligned=0)
