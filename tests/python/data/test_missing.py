"""Training clips that lack a modality: kept, flagged, counted, and never filled with something."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from mover.config import DataConfig
from mover.data import Clip, ClipDataset, Tokenizer, make_loader
from mover.errors import UserError

ALL = ("text", "video", "audio")
Spoil = Callable[[Clip], Clip]


def build(clips: Sequence[Clip], training: bool = True, missing: str = "mask", **options: Any) -> ClipDataset:
    fields = {"frames": 4, "image_size": 16, "audio_seconds": 1.0, "workers": 0, "max_tokens": 20, "missing": missing}
    fields |= {key: options.pop(key) for key in list(options) if key in DataConfig.model_fields}
    tokenizer = Tokenizer.train([text for clip in clips for text in clip.captions] or ["x"], max_tokens=20)
    return ClipDataset(clips, DataConfig(**fields), ALL, tokenizer, training=training, progress=False, **options)


@pytest.fixture
def gappy(clips: list[Clip], broken: Spoil) -> list[Clip]:
    """What clips 1 to 5 lack, in their order: audio, by its status; video; captions; readable media; readable video."""
    clips[1] = replace(clips[1], status={"audio": "no_audio_track"})
    clips[2] = replace(clips[2], video=None)
    clips[3] = replace(clips[3], captions=())
    clips[4] = broken(clips[4])
    clips[5] = replace(clips[5], video=broken(clips[5]).video)
    return clips


LACKING = {"clip1": {"audio"}, "clip2": {"video"}, "clip3": {"text"}, "clip4": {"video", "audio"}, "clip5": {"video"}}


def rows_of(batch: dict[str, Any], row: int) -> dict[str, list[torch.Tensor]]:
    """The tensors of one clip, its text without padding."""
    there = batch["text"]["attention_mask"][row].bool()
    return {
        "text": [batch["text"]["input_ids"][row][there]],
        "video": [batch["video"]["pixels"][row]],
        "audio": [batch["audio"]["waveform"][row], batch["audio"]["length"][row]],
    }


@pytest.mark.parametrize("options", [{}, {"cache": "memory"}, {"workers": 2}, {"cache": "memory", "workers": 2}])
def test_every_clip_with_what_it_has(gappy: list[Clip], options: dict[str, Any]) -> None:
    dataset = build(gappy, **options)
    for batch in make_loader(dataset, 12, steps=3):
        assert sorted(batch["ids"]) == sorted(clip.id for clip in gappy)
        assert batch["video"]["pixels"].shape == (12, 4, 3, 16, 16)
        assert batch["audio"]["waveform"].shape == (12, 16000)
        for row, name in enumerate(batch["ids"]):
            tensors = rows_of(batch, row)
            for modality in ALL:
                there = modality not in LACKING.get(name, set())
                assert bool(batch["present"][modality][row]) == there, (name, modality)
                assert any(tensor.any() for tensor in tensors[modality]) == there


def test_what_is_there_is_what_a_complete_clip_gives(clips: list[Clip], broken: Spoil) -> None:
    complete = list(make_loader(build(list(clips), missing="drop", seed=3), 6, steps=5))
    gappy = [replace(clip, video=None) if i % 3 == 0 else clip for i, clip in enumerate(clips)]
    gappy[1] = replace(gappy[1], audio=broken(gappy[1]).audio)
    for late in (0, 3):
        loader = make_loader(build(gappy, seed=3), 6, start_step=late, steps=5)
        for batch, other in zip(loader, complete[late:], strict=True):
            assert batch["ids"] == other["ids"]
            for row in range(6):
                ours, theirs = rows_of(batch, row), rows_of(other, row)
                for modality in ALL:
                    if batch["present"][modality][row]:
                        assert all(torch.equal(a, b) for a, b in zip(ours[modality], theirs[modality], strict=True))


def test_gaps_are_counted_and_those_found_late_named(gappy: list[Clip], caplog: pytest.LogCaptureFixture) -> None:
    dataset = build([*gappy, Clip("nothing", ())])

    def counts() -> dict[str, list[str]]:
        return {modality: sorted(without) for modality, without in dataset.absent.items()}

    assert counts() == {"text": ["clip3"], "video": ["clip2"], "audio": ["clip1"]}
    assert dataset.skipped == {"nothing": "caption missing, video missing, audio missing"}
    assert len(dataset) == 12 and dataset.listed == 13
    with caplog.at_level(logging.WARNING):
        list(make_loader(dataset, 12, steps=2))
    assert counts() == {"text": ["clip3"], "video": ["clip2", "clip4", "clip5"], "audio": ["clip1", "clip4"]}
    assert "clip4.mp4" in dataset.absent["video"]["clip4"]
    said = [record.message for record in caplog.records if "clip5" in record.message]
    assert len(said) == 1 and "used without video" in said[0]


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_clip_of_which_nothing_is_left_is_replaced(clips: list[Clip], broken: Spoil, cache: str) -> None:
    clips[0] = replace(broken(clips[0]), captions=())
    dataset = build(clips, cache=cache)
    for batch in make_loader(dataset, 11, steps=2):
        assert "clip0" not in batch["ids"] and len(set(batch["ids"])) == 11
    assert "clip0.mp4" in dataset.skipped["clip0"]
    assert not any(dataset.absent.values())


def test_a_batch_without_any_row_of_a_modality(clips: list[Clip]) -> None:
    silent = [replace(clip, captions=(), audio=None) for clip in clips[:11]]
    batches = list(make_loader(build([*silent, clips[11]]), 4, steps=3))
    empty = [batch for batch in batches if not batch["present"]["text"].any()]
    assert len(empty) == 2
    for batch in empty:
        assert batch["text"]["input_ids"].shape == batch["text"]["attention_mask"].shape == (4, 1)
        assert not batch["text"]["attention_mask"].any() and batch["text"]["input_ids"].tolist() == [[1]] * 4
        assert not batch["audio"]["waveform"].any() and batch["audio"]["length"].tolist() == [0] * 4
        assert batch["present"]["video"].all()


def test_a_modality_that_no_clip_has_is_refused(clips: list[Clip]) -> None:
    with pytest.raises(UserError, match=r"None of 12 clips has audio.*'modalities'"):
        build([replace(clip, audio=None) for clip in clips])
    with pytest.raises(UserError, match=r"None of 12 clips has a caption"):
        build([replace(clip, captions=()) for clip in clips])
    with pytest.raises(UserError, match=r"None of 1 clips can be used; the last one: caption missing, video missing"):
        build([Clip("nothing")])


def test_dropping_is_the_default_and_evaluation_does_not_mask(gappy: list[Clip]) -> None:
    assert DataConfig().missing == "drop"
    dropping = build(gappy, missing="drop")
    assert [clip.id for clip in dropping.clips] == ["clip0", *(f"clip{i}" for i in range(4, 12))]
    assert dropping.skipped["clip1"] == "audio no_audio_track" and not any(dropping.absent.values())
    for batch in make_loader(dropping, 7, steps=1):
        assert all(flags.all() for flags in batch["present"].values())
    evaluating = ClipDataset(
        gappy, dropping.config.model_copy(update={"missing": "mask"}), ALL, dropping.collate.tokenizer,
        training=False, missing="drop", progress=False,
    )  # fmt: skip
    assert [clip.id for clip in evaluating.clips] == [clip.id for clip in dropping.clips]
