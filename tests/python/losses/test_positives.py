"""Equation 9 with matched positives, other anchors and cosines, recomputed with loops."""

from itertools import combinations

import pytest
import torch
from torch.nn.functional import normalize

from cases.star import coupled, embeddings, tangent
from mover import ops, reference
from mover.config import TransportConfig
from mover.errors import UserError
from mover.losses import VolumeContrastiveLoss

EXACT = TransportConfig(epsilon=0.5, max_iter=20000, tol=0.0)
THREE = ("text", "video", "audio")
NAMES = (*THREE, "depth")
PATTERN = {
    "text": [1, 1, 0, 1, 1, 1],
    "video": [1, 0, 1, 1, 1, 1],
    "audio": [0, 1, 1, 1, 0, 1],
    "depth": [1, 1, 1, 0, 1, 1],
}
TAU = 0.5


def presence(names, missing):
    return {name: torch.tensor(PATTERN[name]).bool() | (not missing) for name in names}


def disordered(names, n=6, d=7):
    """Embeddings of which two rows of each other modality have changed places: matches are not the pairs."""
    z = {name: rows.detach() for name, rows in embeddings(names, n, d).items()}
    for m, name in enumerate(names[1:]):
        order = list(range(n))
        order[m], order[m + 2] = order[m + 2], order[m]
        z[name] = z[name][order]
    return {name: rows.requires_grad_() for name, rows in z.items()}


def measure(anchor, group, by, complete=True):
    """The volume of the anchor with a group of any size; its distance from their span, also where a group is not
    complete; or the mean of 1 - cos."""
    if by == "cosine":
        pairs = list(combinations([anchor, *group], 2))
        return sum(1 - (x * y).sum() for x, y in pairs) / len(pairs)
    volume = reference.volume(torch.stack([anchor, *group]))
    return volume if complete and by == "volume" else volume / reference.volume(torch.stack(group))


def cross_entropy(anchors, groups, by, denominator="all", smoothing=0.1, complete=True):
    """Anchor i belongs to group i; both ways, entry by entry."""
    n = len(anchors)
    logits = [[-measure(anchors[i], groups[j], by, complete) / TAU for j in range(n)] for i in range(n)]
    total = 0
    for matrix in (logits, list(zip(*logits, strict=True))):
        for i, row in enumerate(matrix):
            summed = sum(row[j].exp() for j in range(n) if denominator == "all" or j != i)
            targets = [(1 - smoothing) * (i == j) + smoothing / n for j in range(n)]
            total = total + summed.log() - sum(t * entry for t, entry in zip(targets, row, strict=True))
    return total / (2 * n)


def paired_by_loops(z, present, names, by="volume", aligned=6, **options):
    anchor, *others = names
    clips = [i for i in range(aligned) if present[anchor][i] and any(present[name][i] for name in others)]
    groups = [[z[name][i] for name in others if present[name][i]] for i in clips]
    complete = all(len(group) == len(others) for group in groups)
    return cross_entropy([z[anchor][i] for i in clips], groups, by, complete=complete, **options)


def matched_by_loops(z, present, names, by="volume", coupling="transport", guide=0.0, aligned=None, **options):
    rows = [z[name] for name in names]
    plans, _ = coupled(rows, [present[name] for name in names], EXACT.epsilon, coupling, guide, aligned)
    clips = [i for i in range(6) if present[names[0]][i]]
    groups = [
        [other[max(range(6), key=plan[i].tolist().__getitem__)] for plan, other in zip(plans, rows[1:], strict=True)]
        for i in clips
    ]
    return cross_entropy([rows[0][i] for i in clips], groups, by, **options)


def assert_agree(value, expected, leaves):
    """The values, and the part of the gradients along the sphere; tau is stored in single precision."""
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    pair = (torch.autograd.grad(v, leaves, retain_graph=True, allow_unused=True) for v in (value, expected))
    for leaf, ours, theirs in zip(leaves, *pair, strict=True):
        ours, theirs = (torch.zeros_like(leaf) if g is None else g for g in (ours, theirs))
        torch.testing.assert_close(tangent(ours, leaf), tangent(theirs, leaf), rtol=1e-5, atol=1e-6)


def contrast(names, anchor, **options):
    return VolumeContrastiveLoss(names, anchor, temperature=TAU, transport=EXACT, **options).double()


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("by", ["volume", "span", "cosine"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_positives_against_loops(k, by, denominator, missing):
    names = NAMES[:k]
    z, present, leaves = disordered(names), presence(names, missing), None
    leaves = list(z.values())
    options = {"denominator": denominator, "contrast_by": by}
    paired = paired_by_loops(z, present, names, by, denominator=denominator)
    matched = matched_by_loops(z, present, names, by, denominator=denominator)
    assert abs(float((paired - matched).detach())) > 1e-3
    assert_agree(contrast(names, "text", **options)(z, present), paired, leaves)
    assert_agree(contrast(names, "text", positives="transport", **options)(z, present), matched, leaves)
    mixed = contrast(names, "text", positives="mixed", mixture=0.3, **options)(z, present)
    assert_agree(mixed, 0.7 * paired + 0.3 * matched, leaves)


@pytest.mark.parametrize("coupling", ["transport", "softmax"])
@pytest.mark.parametrize(("guide", "aligned"), [(0.0, None), (3.0, None), (3.0, 2), (3.0, 0)])
def test_matches_are_those_of_the_plans(coupling, guide, aligned):
    z, present = disordered(THREE), presence(THREE, False)
    loss = VolumeContrastiveLoss(
        THREE,
        "text",
        temperature=TAU,
        positives="transport",
        transport=EXACT.model_copy(update={"guide": guide}),
        coupling=coupling,
    ).double()
    expected = matched_by_loops(z, present, THREE, coupling=coupling, guide=guide, aligned=aligned)
    assert_agree(loss(z, aligned=aligned), expected, list(z.values()))
    if guide and aligned is None:  # every pair is told: the positives are the pairs
        assert_agree(loss(z), paired_by_loops(z, present, THREE), list(z.values()))


def test_nearest_neighbours_crowd_where_transport_does_not():
    """Two anchors close to one row: both take it by softmax, and by transport one of them takes the next."""
    rows = torch.eye(4, 5, dtype=torch.float64)
    anchor = rows.clone()
    anchor[1] = normalize(1.2 * rows[0] + 1.0 * rows[1], dim=0)
    z = {"text": anchor, "video": rows}
    sharp = TransportConfig(epsilon=0.1, tol=1e-9, max_iter=5000)
    plan = reference.sinkhorn(reference.cost(anchor, rows), epsilon=0.1, max_iter=200).plan
    chosen = {"transport": plan.argmax(1), "softmax": (anchor @ rows.T).argmax(1)}
    for coupling, best in chosen.items():
        loss = VolumeContrastiveLoss(
            ("text", "video"), "text", positives="transport", transport=sharp, coupling=coupling
        ).double()
        expected = VolumeContrastiveLoss(("text", "video"), "text").double()({"text": anchor, "video": rows[best]})
        torch.testing.assert_close(loss(z), expected)
    assert {coupling: best.tolist() for coupling, best in chosen.items()} == {
        "transport": [0, 1, 2, 3],
        "softmax": [0, 0, 2, 3],
    }


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("positives", ["paired", "transport", "mixed"])
@pytest.mark.parametrize("aligned", [4, 1, 0])
def test_aligned_clips_against_loops(positives, aligned, missing):
    """Pairs are of the first clips only, matches of all."""
    z, present = disordered(THREE), presence(THREE, missing)
    paired = paired_by_loops(z, present, THREE, aligned=aligned) if aligned >= 2 else 0 * z["text"].sum()
    matched = matched_by_loops(z, present, THREE)
    expected = {"paired": paired, "transport": matched, "mixed": (paired + matched) / 2}[positives]
    value = contrast(THREE, "text", positives=positives)(z, present, aligned=aligned)
    assert_agree(value, expected, list(z.values()))
    if positives == "paired":
        gradients = torch.autograd.grad(value, list(z.values()))
        assert all(not gradient[aligned:].any() for gradient in gradients)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize(("k", "by"), [(2, "volume"), (3, "volume"), (4, "volume"), (3, "span"), (3, "cosine")])
def test_anchors_against_loops(k, by, missing):
    names = NAMES[:k]
    z, present = disordered(names), presence(names, missing)
    turns = [["video", *(m for m in names if m != "video")]]
    turns += [[name, "video", *(m for m in names if m not in (name, "video"))] for name in names if name != "video"]
    for positives, by_loops in (("paired", paired_by_loops), ("transport", matched_by_loops)):
        expected = [by_loops(z, present, turn, by) for turn in turns]
        options = {"contrast_by": by, "positives": positives}
        for step in (0, k + 1):
            value = contrast(names, "video", anchoring="rotating", **options)(z, present, step=step)
            assert_agree(value, expected[step % k], list(z.values()))
        value = contrast(names, "video", anchoring="all", **options)(z, present)
        assert_agree(value, sum(expected) / k, list(z.values()))


def test_anchors_without_two_clips_are_left_out_of_the_mean():
    z, present = disordered(THREE), presence(THREE, False)
    present["audio"] = torch.arange(6) == 2
    expected = [paired_by_loops(z, present, turn) for turn in (THREE, ("video", "text", "audio"))]
    value = contrast(THREE, "text", anchoring="all")(z, present)
    assert_agree(value, sum(expected) / 2, list(z.values()))


CHOICES = [
    {"positives": "transport"},
    {"positives": "mixed", "mixture": 0.3, "contrast_by": "cosine"},
    {"positives": "mixed", "coupling": "softmax", "denominator": "negatives"},
    {"contrast_by": "cosine", "anchoring": "all"},
    {"contrast_by": "span", "positives": "mixed"},
    {"positives": "transport", "anchoring": "rotating"},
]


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize(("k", "options"), [*((3, options) for options in CHOICES), (2, CHOICES[1]), (4, CHOICES[1])])
def test_gradcheck(k, options, missing):
    names = NAMES[:k]
    present = presence(names, missing)
    loss = contrast(names, "text", **options)
    leaves = [
        torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i)).requires_grad_()
        for i in range(k)
    ]

    def value(*rows):
        z = {name: normalize(row, dim=1) for name, row in zip(names, rows, strict=True)}
        return loss(z, present, step=1, aligned=4)

    assert torch.autograd.gradcheck(value, leaves)


def test_rows_that_several_anchors_share_have_the_same_gradient_every_time():
    generator = torch.Generator().manual_seed(0)
    anchor = normalize(torch.randn(1024, 512, generator=generator), dim=1)
    few = normalize(torch.randn(128, 512, generator=generator), dim=1)
    other = few[torch.arange(1024) % 128] + 1e-3 * anchor.roll(1, 0)
    loss = VolumeContrastiveLoss(("text", "video"), "text", positives="transport", coupling="softmax")
    torch.set_num_threads(2)
    found = []
    for _ in range(3):
        rows = normalize(other, dim=1).requires_grad_()
        loss({"text": anchor, "video": rows}).backward()
        found.append(rows.grad)
    assert 0 < int((found[0].abs().sum(1) > 0).sum()) < 700  # many anchors have a neighbour in common
    assert all(torch.equal(found[0], again) for again in found[1:])


def test_no_plan_is_made_for_pairs(z, monkeypatch):
    def unexpected(*_, **__):
        raise AssertionError("a plan was made")

    monkeypatch.setattr(ops, "transport", unexpected)
    VolumeContrastiveLoss(THREE, "text")(z)
    VolumeContrastiveLoss(THREE, "text", positives="mixed", mixture=0.0)(z)
    with pytest.raises(AssertionError, match="a plan was made"):
        VolumeContrastiveLoss(THREE, "text", positives="transport")(z)


def test_a_nan_in_the_embeddings_reaches_the_loss(z):
    z = {**z, "audio": torch.where(torch.arange(6)[:, None] == 2, torch.nan, z["audio"])}
    for options in CHOICES:
        assert bool(VolumeContrastiveLoss(THREE, "text", **options)(z).isnan())


def test_cosines_have_no_most_modalities():
    names = [f"m{i}" for i in range(10)]
    z = embeddings(names, 4, 6)
    present = {name: torch.ones(4, dtype=torch.bool) for name in names}
    value = contrast(names, "m0", contrast_by="cosine")(z)
    assert_agree(value, paired_by_loops(z, present, names, "cosine", aligned=4), list(z.values()))
    with pytest.raises(UserError, match=r"at most 8 modalities, got 10\. .*objective\.contrast_by to cosine"):
        VolumeContrastiveLoss(names, "m0")
