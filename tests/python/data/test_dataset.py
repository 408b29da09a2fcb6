"""Dataset and loader: what a step yields never depends on history, and bad clips never pass unnoticed."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mover.config import DataConfig
from mover.data import Clip, ClipDataset, Tokenizer, make_loader
from mover.data.media import MediaError, pcm_to_float
from mover.errors import UserError

ALL = ("text", "video", "audio")


def build(clips: Sequence[Clip], training: bool, modalities: Sequence[str] = ALL, **options: Any) -> ClipDataset:
    """A dataset of frames 16 pixels wide; options go to DataConfig where it has them, `missing` aside."""
    fields = {"frames": 4, "image_size": 16, "audio_seconds": 1.0, "workers": 0, "max_tokens": 20}
    fields |= {key: options.pop(key) for key in list(options) if key in DataConfig.model_fields and key != "missing"}
    tokenizer = Tokenizer.train([text for clip in clips for text in clip.captions] or ["x"], max_tokens=20)
    return ClipDataset(clips, DataConfig(**fields), modalities, tokenizer, training=training, progress=False, **options)


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def test_batch_layout(clips: list[Clip]) -> None:
    (batch,) = make_loader(build(clips, training=True), 5, steps=1)
    assert len(batch["ids"]) == 5 and batch["index"].dtype == torch.int64
    assert [clips[index].id for index in batch["index"]] == batch["ids"]
    assert batch["text"]["input_ids"].shape == batch["text"]["attention_mask"].shape
    assert batch["video"]["pixels"].shape == (5, 4, 3, 16, 16) and batch["video"]["pixels"].dtype == torch.uint8
    assert batch["audio"]["waveform"].shape == (5, 16000) and batch["audio"]["waveform"].dtype == torch.float32
    assert batch["audio"]["length"].tolist() == [16000] * 5
    assert all(flags.dtype == torch.bool and flags.all() for flags in batch["present"].values())
    assert batch["present"].keys() == set(ALL)


def test_only_the_modalities_of_the_run(clips: list[Clip]) -> None:
    blind = [replace(clip, video=None) for clip in clips]
    (batch,) = make_loader(build(blind, training=True, modalities=("text", "audio")), 12, steps=1)
    assert set(batch) == {"ids", "index", "present", "aligned", "together", "owner", "text", "audio"}
    with pytest.raises(UserError, match=r"None of 12 clips.*video missing"):
        build(blind, training=True)


def test_steps_do_not_depend_on_history(clips: list[Clip]) -> None:
    whole = list(make_loader(build(clips, training=True, seed=3), 5, steps=7))
    for options in ({}, {"workers": 3}, {"cache": "memory"}, {"cache": "memory", "workers": 2}):
        resumed = list(make_loader(build(clips, training=True, seed=3, **options), 5, start_step=3, steps=7))
        assert len(resumed) == 4 and all(same(a, b) for a, b in zip(whole[3:], resumed, strict=True)), options
    other = list(make_loader(build(clips, training=True, seed=4), 5, steps=7))
    assert not any(same(a, b) for a, b in zip(whole, other, strict=True))


def test_epochs_are_permutations_without_repeats_in_a_batch(clips: list[Clip]) -> None:
    loader = make_loader(build(clips, training=True, modalities=("text", "audio")), 4, steps=6)
    assert loader.steps_per_epoch == 3 and len(loader) == 6
    ids = [batch["ids"] for batch in loader]
    assert sorted(itertools.chain(*ids[:3])) == sorted(itertools.chain(*ids[3:])) == sorted(clip.id for clip in clips)
    assert ids[:3] != ids[3:]


def test_captions_frames_and_windows_vary_between_epochs(clips: list[Clip]) -> None:
    dataset = build(clips, training=True)
    samples = [dataset.sample(0, epoch) for epoch in range(30)]
    assert {sample.values["text"] for sample in samples} == set(clips[0].captions)
    assert len({sample.values["video"].tobytes() for sample in samples}) > 10
    assert len({sample.values["audio"][0].tobytes() for sample in samples}) > 10


def test_evaluation_is_fixed_and_in_order(clips: list[Clip]) -> None:
    dataset = build(clips, training=False)
    batches = list(make_loader(dataset, 5))
    assert [len(batch["ids"]) for batch in batches] == [5, 5, 2]
    assert [name for batch in batches for name in batch["ids"]] == [clip.id for clip in clips]
    for options in ({"cache": "memory", "workers": 2}, {"seed": 9}):
        again = list(make_loader(build(clips, training=False, **options), 5))
        assert all(same(a, b) for a, b in zip(batches, again, strict=True))
    brightness = batches[0]["video"]["pixels"][0].float().mean((1, 2, 3))  # frames 2, 6, 10 and 14 of clip 0
    np.testing.assert_allclose(brightness, [8, 24, 40, 56], atol=2)


def test_captions_and_owners(clips: list[Clip]) -> None:
    few = [replace(clips[0], captions=("a",)), clips[1], replace(clips[2], captions=("b", "c"))]
    texts, owners = build(few, training=False).captions()
    assert texts == ["a", *clips[1].captions, "b", "c"] and owners.tolist() == [0, 1, 1, 1, 2, 2]


def test_short_audio_is_padded(clips: list[Clip]) -> None:
    (batch,) = make_loader(build(clips[:2], training=False, audio_seconds=3.0), 2)
    assert batch["audio"]["waveform"].shape == (2, 48000) and batch["audio"]["length"].tolist() == [32000, 32000]
    assert not batch["audio"]["waveform"][:, 32000:].any() and batch["audio"]["waveform"][:, 31000:32000].any()


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_clips_in_training_are_replaced_counted_and_named(
    clips: list[Clip],
    broken: Callable[[Clip], Clip],
    caplog: pytest.LogCaptureFixture,
    cache: str,
    workers: int,
) -> None:
    spoilt = [broken(clip) if clip.id in ("clip3", "clip7") else clip for clip in clips]
    dataset = build(spoilt, training=True, cache=cache, workers=workers)
    with caplog.at_level(logging.WARNING):
        batches = list(make_loader(dataset, 10, steps=5))
    assert set(dataset.skipped) == {"clip3", "clip7"} and dataset.listed == 12
    assert "clip3.mp4" in dataset.skipped["clip3"]
    assert sum("clip3" in record.message for record in caplog.records) == 1
    for batch in batches:
        assert len(set(batch["ids"])) == 10 and not {"clip3", "clip7"} & set(batch["ids"])
    late = list(make_loader(build(spoilt, training=True), 10, start_step=3, steps=5))
    assert all(same(a, b) for a, b in zip(batches[3:], late, strict=True)), "substitutes do not depend on history"


def test_too_few_clips(clips: list[Clip], broken: Callable[[Clip], Clip]) -> None:
    with pytest.raises(UserError, match=r"batch of 13 .* only 12 of 12"):
        make_loader(build(clips, training=True), 13)
    loader = make_loader(build([broken(clips[0]), *clips[1:]], training=True), 12, steps=1)
    with pytest.raises(UserError, match=r"batch of 12 .* 1 of 12 cannot be used, 'clip0'"):
        list(loader)
    with pytest.raises(UserError, match="None of 0 clips"):
        build([], training=True)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_bad_clips_in_evaluation(clips: list[Clip], broken: Callable[[Clip], Clip], cache: str) -> None:
    absent = replace(clips[1], video=None, status={"video": "missing"})
    spoilt = [
        clips[0],
        absent,
        broken(clips[2]),
        clips[3],
        clips[3].__class__("bare", (), clips[4].video, clips[4].audio),
    ]
    dropping = build(spoilt, training=False, missing="drop", cache=cache)
    ids = [name for batch in make_loader(dropping, 1) for name in batch["ids"]]
    assert ids == ["clip0", "clip3"] and dropping.listed - len(dropping.skipped) == 2
    assert dropping.skipped["clip1"] == "video missing" and dropping.skipped["bare"] == "caption missing"
    assert "status corrupt" in dropping.skipped["clip2"]
    with pytest.raises(UserError, match=r"'clip1' .* video missing.*missing to drop"):
        build(spoilt, training=False)
    with pytest.raises(UserError, match=r"'clip2' .*clip2\.mp4.*corrupt"):
        list(make_loader(build([clips[0], spoilt[2]], training=False, cache=cache), 2))


def test_a_vanished_file_is_a_media_error(clips: list[Clip]) -> None:
    gone = replace(clips[0], video=clips[0].video.with_name("gone.mp4"))
    dataset = build([gone, *clips[1:]], training=True)
    assert dataset.sample(0) is None and "status missing" in dataset.skipped["clip0"]
    assert isinstance(dataset._failed[0, "video"], MediaError)


def test_cache_that_cannot_fit(clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    with pytest.raises(UserError, match=r"data\.cache"):
        make_loader(build(clips, training=True, cache="memory"), 2)


def test_leaving_a_loader_early_ends_its_threads(clips: list[Clip]) -> None:
    before = threading.active_count()
    for batch in make_loader(build(clips, training=True, workers=2), 4):
        assert len(batch["ids"]) == 4
        break
    assert threading.active_count() == before


def test_a_loader_without_end(clips: list[Clip]) -> None:
    dataset = build(clips, training=True, modalities=("text",))
    (expected,) = make_loader(dataset, 4, start_step=11, steps=12)
    endless = make_loader(dataset, 4, start_step=11)
    assert same(next(iter(endless)), expected)
    with pytest.raises(TypeError):
        len(endless)


def test_a_batch_of_rows_in_unknown_order(clips: list[Clip]) -> None:
    """Each row is of the clip that `owner` says, in each modality; the draws are those of whole clips."""
    dataset = build(clips, training=True, aligned_fraction=0.5, aligned_rows=2)
    loader = make_loader(dataset, 6, steps=8)
    for step, batch in enumerate(loader):
        assert batch["aligned"] == 2 and batch["together"] == ()
        owner = {m: places.tolist() for m, places in batch["owner"].items()}
        assert owner["text"][:2] == owner["video"][:2] == owner["audio"][:2]
        assert sorted(owner["text"][2:]) == sorted(owner["video"][2:]) == sorted(owner["audio"][2:])
        epochs = dict(zip(owner["video"], loader.batches.rows(step).epochs.tolist(), strict=True))
        for i in range(6):
            sample = dataset.sample(owner["video"][i], epochs[owner["video"][i]])
            assert np.array_equal(batch["video"]["pixels"][i].numpy(), sample.values["video"])
            sample = dataset.sample(owner["audio"][i], epochs[owner["audio"][i]])
            wave = pcm_to_float(sample.values["audio"][0])
            assert np.array_equal(batch["audio"]["waveform"][i].numpy(), wave)


def test_a_clip_that_cannot_be_decoded_is_replaced_by_one_of_its_kind(clips: list[Clip], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    dataset = build(clips, training=True, aligned_fraction=0.5, aligned_rows=2)
    batches = make_loader(dataset, 6, steps=1).batches
    for lost, kind in ((batches.aligned, "aligned"), (batches.others, "others")):
        bad = [replace(clip, video=broken) if i == lost[0] else clip for i, clip in enumerate(dataset.clips)]
        found = build(bad, training=True, aligned_fraction=0.5, aligned_rows=2)
        loader = make_loader(found, 6, steps=12)
        seen = []
        for batch in loader:
            owner = {m: places.tolist() for m, places in batch["owner"].items()}
            assert sorted(owner["text"]) == sorted(owner["video"]) and len(set(owner["text"])) == 6
            assert owner["text"][:2] == owner["audio"][:2]
            assert set(owner["video"][:2]) <= set(batches.aligned.tolist())
            assert set(owner["video"][2:]) <= set(batches.others.tolist())
            seen += owner["text"]
        assert lost[0] not in seen, kind
