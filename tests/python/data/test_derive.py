"""Derived manifests: only training clips change, by the shares asked for, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mover.data import Clip, Reference
from mover.data.derive import Changes, choose_unseen, derive
from mover.data.mismatch import mismatched
from mover.data.sampling import generator
from mover.errors import UserError

CLASSES = ("cat", "dog", "owl", "pig")


def clip(number: int, split: str, label: str | None) -> Clip:
    media = Path(f"/media/{number}.mp4")
    depth = Reference(Path("/media/depth.npy"), number)
    return Clip(
        f"c{number}", (f"caption {number}",), media, media, split=split, label=label, extra={"n": number},
        others={"depth": depth},
    )  # fmt: skip


@pytest.fixture
def clips() -> list[Clip]:
    """40 training, 8 validation and 8 test clips of four classes in turn."""
    splits = ["train"] * 40 + ["val"] * 8 + ["test"] * 8
    return [clip(i, split, CLASSES[i % 4]) for i, split in enumerate(splits)]


def of(clips: Sequence[Clip], split: str) -> list[Clip]:
    return [clip for clip in clips if clip.split == split]


@pytest.mark.parametrize("modality", ["text", "video", "audio", "depth"])
def test_mismatched_clips_have_what_another_one_had(clips: list[Clip], modality: str) -> None:
    made = derive(clips, Changes(mismatched={modality: 0.4}, seed=3))
    assert made[40:] == clips[40:]
    wrong = [new for new in made if "mismatched" in new.extra]
    assert len(wrong) == 16 and all(new.split == "train" for new in wrong)
    by_id = {old.id: old for old in clips}
    givers = [by_id[new.extra["mismatched"][modality]] for new in wrong]
    assert sorted(giver.id for giver in givers) == sorted(new.id for new in wrong), "what there is goes round"
    for new, giver in zip(wrong, givers, strict=True):
        old = by_id[new.id]
        assert giver.id != new.id
        expected = {
            "text": replace(old, captions=giver.captions),
            "video": replace(old, video=giver.video),
            "audio": replace(old, audio=giver.audio),
            "depth": replace(old, others={"depth": giver.others["depth"]}),
        }[modality]
        assert replace(new, extra=old.extra) == expected
    assert [new for new in made if "mismatched" not in new.extra] == [old for old in clips if old.id not in
                                                                     {new.id for new in wrong}]  # fmt: skip


def test_equal_seeds_give_equal_manifests(clips: list[Clip]) -> None:
    def made(seed: int) -> list[Clip]:
        changes = Changes(
            unseen_share=0.25, without={"audio": 0.3}, shared_captions=2, mismatched={"text": 0.5, "depth": 0.5},
            seed=seed,
        )  # fmt: skip
        return derive(clips, changes)

    assert made(1) == made(1) != made(2)


def test_equal_captions_are_not_exchanged_for_each_other(clips: list[Clip]) -> None:
    same = [replace(c, captions=("a", "b") if i < 10 else ("b", "a") if i < 20 else c.captions)
            for i, c in enumerate(clips[:40])]  # fmt: skip
    for seed in range(5):
        for old, new in zip(same, mismatched(same, "text", 1.0, generator(seed)), strict=True):
            assert sorted(new.captions) != sorted(old.captions)
    most = [replace(c, captions=("a",) if i < 21 else c.captions) for i, c in enumerate(clips[:40])]
    with pytest.raises(UserError, match="more than half of them have the same"):
        mismatched(most, "text", 1.0, generator(0))


def test_mismatching_passes_over_clips_that_lack_the_modality(clips: list[Clip]) -> None:
    some = [replace(c, status={"audio": "missing"} if i % 2 else {}) for i, c in enumerate(clips[:40])]
    made = mismatched(some, "audio", 0.5, generator(0))
    assert sum("mismatched" in c.extra for c in made) == 10
    assert all(c.present("audio") for c in made if "mismatched" in c.extra)


@pytest.mark.parametrize(
    ("share", "modality", "said"),
    [
        (0.0, "text", "above 0 and at most 1, got 0"),
        (1.5, "text", "above 0 and at most 1, got 1.5"),
        (0.01, "text", "0.01 of 40 clips with text is 0, and it takes two"),
        (0.5, "smell", "0.5 of 0 clips with smell is 0"),
    ],
)
def test_what_cannot_be_mismatched(clips: list[Clip], share: float, modality: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        derive(clips, Changes(mismatched={modality: share}))


def test_parts_of_longer_files_keep_their_media(clips: list[Clip]) -> None:
    parts = [replace(c, start=1.0, duration=2.0) for c in clips]
    with pytest.raises(UserError, match="part of a longer file, and its video alone"):
        derive(parts, Changes(mismatched={"video": 0.5}))
    derive(parts, Changes(mismatched={"text": 0.5}))


def test_unseen_classes_are_not_trained_on(clips: list[Clip]) -> None:
    odd = [*clips, clip(99, "train", None), clip(100, "test", None)]
    made = derive(odd, Changes(unseen=("owl", "cat")))
    assert Counter(c.label for c in of(made, "train")) == {"dog": 10, "pig": 10}
    assert [c.id for c in made if c.split != "train"] == [c.id for c in odd if c.split != "train"]
    for c in of(made, "val") + of(made, "test")[:-1]:
        assert c.extra["unseen"] is (c.label in ("owl", "cat")) and c.extra["n"] == int(c.id[1:])
    assert "unseen" not in made[-1].extra, "its class is not known"


def test_a_share_of_the_classes_is_drawn_by_chance(clips: list[Clip]) -> None:
    drawn = {choose_unseen(clips, 0.5, "train", seed) for seed in range(30)}
    assert all(len(names) == 2 and list(names) == sorted(names) for names in drawn) and len(drawn) > 3
    assert len(choose_unseen(clips, 0.01, "train", 0)) == 1 and len(choose_unseen(clips, 0.99, "train", 0)) == 3
    only = [c for c in clips if c.split == "train" or c.label in ("cat", "dog")]
    assert {name for seed in range(9) for name in choose_unseen(only, 0.5, "train", seed)} == {"cat", "dog"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (Changes(unseen=("cow",)), "No clip has the class 'cow'. The manifest has: cat, dog, owl, pig."),
        (Changes(unseen=CLASSES), "nothing would be left to train on"),
        (Changes(unseen=("cat",), unseen_share=0.5), "by name, or by share"),
        (Changes(unseen_share=1.0), "between 0 and 1, got 1"),
        (Changes(unseen=("cat",), train_split="training"), "split 'training' to train on. The manifest has: test, tr"),
        (Changes(without={"smell": 0.5}), "No training clip has smell"),
        (Changes(without={"audio": 0.7, "text": 0.7}), "add up to at most 1.*got audio 0.7, text 0.7"),
        (Changes(without={"audio": -0.1}), "above 0"),
        (Changes(without={"audio": 1.0}), "No training clip would keep audio"),
        (Changes(shared_captions=0), "two clips or more, got 0"),
    ],
)
def test_what_cannot_be_derived(clips: list[Clip], changes: Changes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        derive(clips, changes)


def test_a_class_without_clips_to_evaluate_is_refused(clips: list[Clip]) -> None:
    without = [c for c in clips if c.label != "owl" or c.split == "train"]
    with pytest.raises(UserError, match="'owl' has no clip outside of 'train'"):
        derive(without, Changes(unseen=("owl",)))
    unlabelled = [replace(c, label=None) for c in clips]
    with pytest.raises(UserError, match="No clip has the class 'owl'. The manifest has: no classes"):
        derive(unlabelled, Changes(unseen=("owl",)))
    with pytest.raises(UserError, match="here are 0"):
        derive(unlabelled, Changes(unseen_share=0.5))


def test_no_clip_loses_two_modalities(clips: list[Clip]) -> None:
    made = derive(clips, Changes(without={"audio": 0.5, "text": 0.25, "depth": 0.25}))
    training = of(made, "train")
    lacking = [{"text", "video", "audio", "depth"} - set(c.modalities()) for c in training]
    assert Counter(name for names in lacking for name in names) == {"audio": 20, "text": 10, "depth": 10}
    assert all(len(names) == 1 for names in lacking)
    assert made[40:] == clips[40:]
    without_text = next(c for c in training if not c.captions)
    assert without_text.video is not None and without_text.status == {}


def test_captions_are_shared_within_a_class(clips: list[Clip]) -> None:
    made = derive(clips, Changes(shared_captions=4))
    groups = Counter(c.captions for c in of(made, "train"))
    assert sorted(groups.values()) == [2] * 4 + [4] * 8, "ten of a class are 4, 4 and 2"
    by_id = {c.id: c for c in clips}
    for new in of(made, "train"):
        first = by_id[new.extra["captions_of"]]
        assert new.captions == first.captions and new.label == first.label
    assert made[40:] == clips[40:]
    bare = [replace(c, captions=()) for c in clips]
    with pytest.raises(UserError, match="No training clip has captions"):
        derive(bare, Changes(shared_captions=2))
