"""Filling the cache of frozen towers: what is there is not computed again, what has changed is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mover.config import Config
from mover.configs import load_config
from mover.data import Clip, MediaError, Reference
from mover.data import dataset as dataset_module
from mover.data.dataset import ClipDataset
from mover.data.feature_cache import FeatureStore
from mover.data.loader import make_loader
from mover.data.manifest import read_manifest
from mover.data.tokenizer import Tokenizer
from mover.errors import UserError
from mover.models.model import MoverModel
from mover.train.frozen import serve_frozen_towers

FROZEN = {f"model.{m}.trained_layers": 0 for m in ("text", "video", "audio")}
Count = tuple[int, int]


@pytest.fixture
def base(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    cache = {"data.cache": "features", "data.cache_folder": str(tmp_path / "cache"), "evaluate.batch_size": 4}
    return {**settings, **FROZEN, **cache, "output": str(tmp_path / "runs")}


@pytest.fixture
def clips(manifest: Path) -> list[Clip]:
    """Six clips with three captions each."""
    return [replace(c, captions=(*c.captions[:1], f"one more {c.id}", f"{c.id}")) for c in read_manifest(manifest)[:6]]


class Setup:
    """A model and the clips it is used on."""

    def __init__(self, settings: dict[str, Any], clips: list[Clip]) -> None:
        self.config: Config = load_config("demo", settings)
        self.clips = clips
        self.tokenizer = Tokenizer.for_data(self.config.data)
        torch.manual_seed(3)
        config = self.config
        self.model = MoverModel(config.model, config.data, config.modalities, self.tokenizer.vocab_size)

    def dataset(self, *, training: bool = False, missing: str = "drop") -> ClipDataset:
        return ClipDataset(
            self.clips, self.config.data, self.config.modalities, self.tokenizer,
            training=training, missing=missing, progress=False, others=self.config.model.others,
        )  # fmt: skip

    def serve(self, dataset: ClipDataset | None = None) -> tuple[ClipDataset, dict[str, Count]]:
        """A dataset served, and how many outputs were found and computed by modality."""
        dataset = dataset or self.dataset()
        cpu = torch.device("cpu")
        lines: list[str] = []
        serve_frozen_towers(
            self.model, self.config, [dataset], self.tokenizer, cpu, progress=False, say=lines.append
        )  # fmt: skip
        words = [line.split() for line in lines if line.startswith("frozen")]
        counts = {word[1]: (int(word[3]), int(word[6])) for word in words}
        return dataset, counts


ALL = {"text": (0, 18), "video": (0, 6), "audio": (0, 6)}
NONE = {"text": (18, 0), "video": (6, 0), "audio": (6, 0)}


def test_outputs_are_those_of_the_towers_on_the_draws_of_evaluation(base: dict[str, Any], clips: list[Clip]) -> None:
    setup = Setup(base, clips)
    served, counts = setup.serve()
    assert counts == ALL
    live = setup.dataset()
    for batch, expected in zip(make_loader(served, 3), make_loader(live, 3), strict=True):
        assert batch["ids"] == expected["ids"]
        for modality in ("text", "video", "audio"):
            assert list(batch[modality]) == ["tower_output"]
            with torch.no_grad():
                output = setup.model.towers[modality].body_output(**expected[modality])
            torch.testing.assert_close(batch[modality]["tower_output"], output, rtol=1e-5, atol=1e-6)
            assert torch.equal(batch["present"][modality], expected["present"][modality])


def test_captions_are_drawn_as_without_the_cache(base: dict[str, Any], clips: list[Clip]) -> None:
    setup = Setup(base, clips)
    live = setup.dataset(training=True)
    served, _ = setup.serve(setup.dataset(training=True))
    for epoch in range(4):
        for index, clip in enumerate(clips):
            caption = live.draw("text", index, epoch)
            assert caption in clip.captions
            assert np.array_equal(served.draw("text", index, epoch), served.outputs["text"].of_caption(caption))
    drawn = {served.draw("text", 0, epoch).tobytes() for epoch in range(12)}
    assert len(drawn) == 3
    frames = {served.draw("video", 0, epoch).tobytes() for epoch in range(4)}
    assert len(frames) == 1


def test_the_second_time_nothing_is_decoded_and_no_tower_runs(
    base: dict[str, Any], clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = Setup(base, clips).serve()
    setup = Setup(base, clips)
    for name in ("read_video", "decode_pcm"):
        monkeypatch.setattr(dataset_module, name, None)
    for tower in setup.model.towers.values():
        monkeypatch.setattr(tower, "body_output", None)
    again, counts = setup.serve()
    assert counts == NONE
    for one, other in zip(make_loader(first, 6), make_loader(again, 6), strict=True):
        assert all(torch.equal(one[m]["tower_output"], other[m]["tower_output"]) for m in NONE)


def test_towers_that_learn_are_given_frames_and_sound(base: dict[str, Any], clips: list[Clip]) -> None:
    served, counts = Setup({**base, "model.video.trained_layers": 1}, clips).serve()
    assert counts == {"text": (0, 18), "audio": (0, 6)}
    (batch,) = make_loader(served, 6)
    assert {m: sorted(batch[m]) for m in ALL} == {
        "text": ["tower_output"], "video": ["pixels"], "audio": ["tower_output"]
    }  # fmt: skip


def test_other_caches_are_left_alone(base: dict[str, Any], clips: list[Clip], tmp_path: Path) -> None:
    served, counts = Setup({**base, "data.cache": "none"}, clips).serve()
    assert counts == {} and not served.outputs and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        ({"data.frames": 3}, {"video"}),
        ({"data.image_size": 48}, {"video"}),
        ({"data.audio_seconds": 0.5}, {"audio"}),
        ({"data.max_tokens": 39}, {"text"}),
        ({"train.precision": "bfloat16"}, {"text", "video", "audio"}),
        ({"model.audio.heads": 4}, {"audio"}),
        ({"model.embed_dim": 8, "optimizer.lr": 1, "train.batch_size": 2, "data.workers": 2}, set()),
        ({"model.text.dropout": 0.5, "model.text.attention": "eager"}, set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_count(
    base: dict[str, Any], clips: list[Clip], change: dict[str, Any], computed: set[str]
) -> None:
    first = Setup(base, clips)
    first.serve()
    second = Setup({**base, **change}, clips)
    for name, tower in second.model.towers.items():  # the same weights: only the setting differs
        same = {
            k: v for k, v in first.model.towers[name].state_dict().items() if v.shape == tower.state_dict()[k].shape
        }
        tower.load_state_dict(same, strict=False)
    _, counts = second.serve()
    assert counts == {m: ALL[m] if m in computed else NONE[m] for m in NONE}
    assert first.serve()[1] == NONE


@pytest.mark.parametrize("modality", ["text", "video", "audio"])
def test_one_weight_counts(base: dict[str, Any], clips: list[Clip], modality: str) -> None:
    setup = Setup(base, clips)
    setup.serve()
    parameters = dict(setup.model.towers[modality].named_parameters())
    body = next(p for name, p in parameters.items() if "temporal" not in name)
    with torch.no_grad():
        body.view(-1)[0] += 1e-6
    assert setup.serve()[1] == {m: ALL[m] if m == modality else NONE[m] for m in NONE}


def test_heads_and_layers_over_time_do_not_count(base: dict[str, Any], clips: list[Clip]) -> None:
    setup = Setup(base, clips)
    setup.serve()
    with torch.no_grad():
        for part in (setup.model.heads, setup.model.towers["video"].temporal):
            for parameter in part.parameters():
                parameter += 1
    assert setup.serve()[1] == NONE


def test_another_tokenizer_and_another_caption_count(base: dict[str, Any], clips: list[Clip]) -> None:
    first = Setup(base, clips)
    first.serve()
    said = [replace(clips[0], captions=(*clips[0].captions[:2], "something new")), *clips[1:]]
    assert Setup(base, said).serve()[1] == {**NONE, "text": (17, 1)}
    texts = [caption for clip in clips for caption in clip.captions]
    other = Tokenizer.train(texts, first.config.data.max_tokens, vocab_size=first.tokenizer.vocab_size)
    assert other.vocab_size < first.tokenizer.vocab_size
    first.tokenizer = other
    assert first.serve()[1] == {**NONE, "text": (0, 18)}


def test_a_tokenizer_that_was_saved_is_the_same(base: dict[str, Any], clips: list[Clip], tmp_path: Path) -> None:
    setup = Setup(base, clips)
    setup.tokenizer.save(tmp_path / "tokenizer.json")
    read = Tokenizer.load(tmp_path / "tokenizer.json", setup.config.data.max_tokens)
    assert read.fingerprint() == setup.tokenizer.fingerprint()


def copied(clip: Clip, folder: Path, content: bytes | None = None) -> Clip:
    """The clip with its media in a file of ours, last changed long ago."""
    assert clip.video is not None
    path = folder / f"{clip.id}.mp4"
    path.write_bytes(clip.video.read_bytes() if content is None else content)
    past = time.time_ns() - 10**11 + path.stat().st_size
    os.utime(path, ns=(past, past))
    return replace(clip, video=path, audio=path)


def test_media_of_the_same_size_with_other_content_count(
    base: dict[str, Any], clips: list[Clip], tmp_path: Path
) -> None:
    mine = [copied(clip, tmp_path) for clip in clips]
    served, _ = Setup(base, mine).serve()
    sizes = [clip.video.stat().st_size for clip in mine]
    least, most = int(np.argmin(sizes)), int(np.argmax(sizes))
    filler = sizes[most] - sizes[least]
    assert filler >= 8  # a box of the format that readers pass over
    content = mine[least].video.read_bytes() + filler.to_bytes(4, "big") + b"free" + bytes(filler - 8)
    assert len(content) == sizes[most]
    mine[most].video.write_bytes(content)
    again, counts = Setup(base, mine).serve()
    assert counts == {"text": (18, 0), "video": (5, 1), "audio": (5, 1)}
    assert not np.array_equal(again.draw("video", most), served.draw("video", most))
    np.testing.assert_allclose(again.draw("video", most), again.draw("video", least), rtol=1e-5, atol=1e-6)


def test_part_of_a_file_is_an_entry_of_its_own_and_equal_content_is_shared(
    base: dict[str, Any], clips: list[Clip], tmp_path: Path
) -> None:
    parts = [replace(clips[0], id=f"part{i}", start=start) for i, start in enumerate((0.0, 0.25, 0.5))]
    twin = replace(copied(clips[0], tmp_path), id="twin")
    served, counts = Setup(base, [clips[0], *parts, twin]).serve()
    assert counts["video"] == (0, 4)  # the file whole, and three parts
    draws = [served.draw("video", index).tobytes() for index in range(5)]
    assert draws[4] == draws[0]


def test_a_fault_is_remembered_with_its_reason(
    base: dict[str, Any], clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*clips[:5], copied(clips[5], tmp_path, b"not a video at all")]
    live = Setup({**base, "data.cache": "none"}, broken).dataset()
    list(make_loader(live, 6))
    assert len(live.skipped) == 1
    setup = Setup(base, broken)
    served, counts = setup.serve()
    assert counts == ALL
    list(make_loader(served, 6))
    assert served.skipped == live.skipped

    for name in ("read_video", "decode_pcm"):
        monkeypatch.setattr(dataset_module, name, None)
    again, counts = setup.serve()
    assert counts == NONE
    (batch,) = make_loader(again, 6)
    assert again.skipped == live.skipped and len(batch["ids"]) == 5
    with pytest.raises(UserError, match="cannot be evaluated.*corrupt"):
        list(make_loader(setup.serve(setup.dataset(missing="fail"))[0], 6))


def test_clips_that_lack_something_are_masked_as_without_the_cache(
    base: dict[str, Any], clips: list[Clip], tmp_path: Path
) -> None:
    gaps = [
        replace(clips[0], audio=None), replace(clips[1], video=None), replace(clips[2], captions=()),
        replace(copied(clips[3], tmp_path, b"x"), video=clips[3].video), *clips[4:],
    ]  # fmt: skip
    batches, absent = [], []
    for cache in ("none", "features"):
        setup = Setup({**base, "data.cache": cache, "data.missing": "mask"}, gaps)
        served, counts = setup.serve(setup.dataset(training=True))
        batches.append(make_loader(served, 6).batch(0))
        absent.append(served.absent)
    assert counts == {"text": (0, 15), "video": (0, 5), "audio": (0, 5)}
    assert absent[0] == absent[1]
    assert batches[0]["ids"] == batches[1]["ids"]
    for m in NONE:
        assert torch.equal(batches[0]["present"][m], batches[1]["present"][m])
        assert not batches[1][m]["tower_output"][~batches[1]["present"][m]].any()


def test_a_file_that_is_not_there_is_not_remembered(base: dict[str, Any], clips: list[Clip], tmp_path: Path) -> None:
    late = replace(clips[0], video=tmp_path / "late.mp4", audio=tmp_path / "late.mp4")
    setup = Setup(base, [late, *clips[1:]])
    served, counts = setup.serve()
    assert counts["video"] == (0, 5)
    with pytest.raises(MediaError, match="status missing"):
        served.draw("video", 0)
    late.video.write_bytes(clips[0].video.read_bytes()[:-1])
    with pytest.raises(MediaError, match="not there, or was another, when the frozen tower ran"):
        served.draw("video", 0)
    late.video.write_bytes(clips[0].video.read_bytes())
    assert setup.serve()[1]["video"] == (5, 1)


def test_what_was_kept_before_a_stop_stays(
    base: dict[str, Any], clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup({**base, "evaluate.batch_size": 2}, clips)
    write, calls = FeatureStore.write, []

    def interrupted(self: FeatureStore, outputs: Any) -> None:
        calls.extend(outputs)
        if self.shape == (2, 16) and len(calls) > 18 + 4:
            raise KeyboardInterrupt
        write(self, outputs)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            setup.serve()
    assert setup.serve()[1] == {"text": (18, 0), "video": (4, 2), "audio": (0, 6)}


def test_outputs_that_are_not_finite_are_refused(base: dict[str, Any], clips: list[Clip]) -> None:
    setup = Setup(base, clips)
    with torch.no_grad():
        setup.model.towers["video"].vit.layernorm.bias[0] = torch.nan
    with pytest.raises(UserError, match=rf"video tower gives values that are not finite for '{clips[0].id}'"):
        setup.serve()


def test_a_file_that_changes_while_it_is_read(
    base: dict[str, Any], clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [copied(clips[0], tmp_path), *clips[1:]]
    contents = [clips[n].video.read_bytes() for n in range(2)]
    draw, seen = ClipDataset.draw, []

    def changing(times: int) -> Callable[..., Any]:
        def drawn(self: ClipDataset, modality: str, index: int, epoch: int = 0) -> Any:
            value = draw(self, modality, index, epoch)
            if self.clips[index].video == mine[0].video and modality == "video" and len(seen) < times:
                seen.append(index)
                mine[0].video.write_bytes(contents[len(seen) % 2])
            return value

        return drawn

    monkeypatch.setattr(ClipDataset, "draw", changing(100))
    with pytest.raises(UserError, match="changes while it is read"):
        Setup(base, mine).serve()
    seen.clear()
    monkeypatch.setattr(ClipDataset, "draw", changing(1))
    mine[0].video.write_bytes(contents[0])
    served, _ = Setup(base, mine).serve()
    assert np.array_equal(served.draw("video", 0), served.draw("video", 1))  # of the content it has now, clip 1's


def test_images_are_served_and_given_features_are_not(base: dict[str, Any], clips: list[Clip], tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    np.save(tmp_path / "depth.npy", np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32))
    pictured = []
    for row, clip in enumerate(clips):
        path = tmp_path / f"{clip.id}.png"
        av.VideoFrame.from_ndarray(np.full((32, 32, 3), 30 * row, np.uint8), format="rgb24").save(path)
        others = {"image": Reference(path), "depth": Reference(tmp_path / "depth.npy", row)}
        pictured.append(replace(clip, others=others))
    more = {
        "modalities": "text,image,depth", "model.others.image.kind": "image", "model.others.image.hidden_size": 16,
        "model.others.image.layers": 1, "model.others.image.heads": 2, "model.others.image.intermediate_size": 16,
        "model.others.image.trained_layers": 0, "model.others.depth.kind": "features",
        "model.others.depth.input_size": 5, "model.others.depth.hidden_size": 8,
    }  # fmt: skip
    setup = Setup({**base, **more}, pictured)
    served, counts = setup.serve()
    assert counts == {"text": (0, 18), "image": (0, 6)}
    live = setup.dataset()
    (batch,), (expected,) = make_loader(served, 6), make_loader(live, 6)
    assert sorted(batch["depth"]) == ["features", "length"]
    assert batch["image"]["tower_output"].shape == (6, 1, 16)
    with torch.no_grad():
        for name, z in setup.model.eval()(batch).items():
            torch.testing.assert_close(z, setup.model(expected)[name], rtol=1e-5, atol=1e-6)
    assert setup.serve()[1] == {"text": (18, 0), "image": (6, 0)}


def test_a_file_that_goes_away_while_towers_run_is_missing(
    base: dict[str, Any], clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [copied(clips[0], tmp_path), *clips[1:]]
    draw = ClipDataset.draw

    def remove(self: ClipDataset, modality: str, index: int, epoch: int = 0) -> Any:
        mine[0].video.unlink(missing_ok=True)
        return draw(self, modality, index, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(ClipDataset, "draw", remove)
        served, _ = Setup(base, mine).serve()
    (batch,) = make_loader(served, 6)
    assert batch["ids"] == [clip.id for clip in mine[1:]]
    assert "status missing" in served.skipped[mine[0].id]
