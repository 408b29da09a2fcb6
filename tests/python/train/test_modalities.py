"""Runs of two to five modalities, text among them or not: train, validate, checkpoint, resume, evaluate."""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from rich.console import Console

from mover.cli import main
from mover.configs import load_config
from mover.data.manifest import Reference, read_manifest, write_manifest
from mover.errors import UserError
from mover.evaluate.embeddings_file import load_embeddings
from mover.evaluate.run import evaluate_checkpoint, evaluate_embeddings
from mover.train import trainer
from mover.train.checkpoint import FILES, find_checkpoint
from mover.train.logging import read_log
from mover.train.trainer import train

SMALL = {"hidden_size": 16, "heads": 2, "intermediate_size": 16}
OTHERS = {
    "image": {"kind": "image", "layers": 1, **SMALL},
    "depth": {"kind": "features", "input_size": 6, "layers": 1, "length": 3, **SMALL},
    "notes": {"kind": "features", "input_size": 4, **SMALL},
}
SECTIONS = {f"model.others.{name}.{key}": value for name, tower in OTHERS.items() for key, value in tower.items()}
RUNS = [
    ("image", "depth"),
    ("text", "image"),
    ("depth", "image", "notes"),
    ("text", "video", "image", "depth"),
    ("text", "video", "audio", "image", "depth"),
]


@pytest.fixture(scope="module")
def pictured(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips of `manifest` with an image, one to five rows of depth and a vector of notes each."""
    folder, random = tmp_path_factory.mktemp("pictured"), np.random.default_rng(0)
    clips = read_manifest(manifest)
    np.save(folder / "notes.npy", random.normal(size=(len(clips), 4)).astype(np.float32))
    for place, clip in enumerate(clips):
        picture = av.VideoFrame.from_ndarray(random.integers(0, 256, (40, 60, 3)).astype(np.uint8), format="rgb24")
        with av.open(str(folder / f"{place}.png"), "w", format="image2") as container:
            stream = container.add_stream("png")
            stream.width, stream.height, stream.pix_fmt = 60, 40, "rgb24"
            container.mux(stream.encode(picture))
            container.mux(stream.encode())
        np.save(folder / f"{place}.npy", random.normal(size=(1 + place % 5, 6)).astype(np.float32))
        others = {
            "image": Reference(folder / f"{place}.png"),
            "depth": Reference(folder / f"{place}.npy"),
            "notes": Reference(folder / "notes.npy", place),
        }
        clips[place] = replace(clip, others=others)
    write_manifest(folder / "manifest.jsonl", clips)
    shutil.copy(manifest.parent / "tokenizer.json", folder)
    return folder / "manifest.jsonl"


def settings_of(settings: dict[str, Any], pictured: Path, tmp_path: Path, **values: Any) -> dict[str, Any]:
    names = {name.replace("__", "."): value for name, value in values.items()}
    own = {"data.manifest": str(pictured), "output": str(tmp_path / "runs"), "train.steps": 3}
    return {**settings, **SECTIONS, **own, **names}


def expected_names(modalities: tuple[str, ...], anchor: str) -> list[str]:
    short = {"text": "T", "video": "V", "audio": "A"}
    order = [m for m in short if m in modalities] + [m for m in modalities if m not in short]
    pairs = [(short.get(m, m), short.get(n, n)) for m, n in combinations(order, 2)]
    if len(order) > 2:
        one = "text" if "text" in order else anchor
        letters = "".join(short[m] for m in order if m != one and m in short)
        rest = "+".join([letters] * bool(letters) + [m for m in order if m != one and m not in short])
        pairs.append((short.get(one, one), rest))
    return [f"{a}2{b}" for pair in pairs for a, b in (pair, pair[::-1])]


@pytest.mark.parametrize("modalities", RUNS, ids="-".join)
def test_from_training_to_metrics(
    modalities: tuple[str, ...], settings: dict[str, Any], pictured: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr(trainer, "draw_plans", lambda plans, path, title: drawn.append(list(plans)))
    anchor = modalities[-1]
    values = settings_of(settings, pictured, tmp_path, modalities=",".join(modalities))
    values |= {"objective.anchor": anchor, "objective.mover_start": 0.0, "objective.mover_warmup": 0.5}
    config = load_config("demo", values)
    outcome = train(config, console=Console(quiet=True))
    names = expected_names(modalities, anchor)
    assert outcome.step == 3 and outcome.best is not None and list(outcome.best["R@1"]) == names
    assert drawn == [[f"{m}-{n}" for m, n in combinations(modalities, 2)]]
    lines = read_log(config.folder / "log.jsonl")
    steps = [line for line in lines if line["kind"] == "train"]
    assert {"mover", "volume_contrastive", "pairwise"} <= steps[-1]["terms"].keys()
    assert all(np.isfinite(value) for line in steps for value in line["terms"].values())
    assert next(line["clips"] for line in lines if line["kind"] == "validation") == dict.fromkeys(names, 6)

    best = config.folder / "checkpoints" / "best"
    absent = set() if "text" in modalities else {"tokenizer.json"}
    assert {path.name for path in best.iterdir()} == set(FILES) - absent
    result = evaluate_checkpoint(best, embeddings_out=tmp_path / "e.npz")
    assert [name for name in result.metrics if " " not in name] == names
    assert {row["clips"] for row in result.metrics.values()} == {6}
    embeddings = load_embeddings(tmp_path / "e.npz")
    assert set(embeddings.modalities) == set(modalities)
    again = evaluate_embeddings(tmp_path / "e.npz", anchor=None if "text" in modalities else anchor)
    assert again.metrics == result.metrics

    longer = load_config("demo", {**values, "train.steps": 4})
    assert train(longer, resume=True, console=Console(quiet=True)).step == 4


def test_clips_that_lack_modalities(settings: dict[str, Any], pictured: Path, tmp_path: Path) -> None:
    """From training with masks to both policies of evaluation, without text and without a tokenizer's file."""
    clips = read_manifest(pictured)
    for place, clip in enumerate(clips):
        lost = ("image", "depth", "notes")[place % 3] if place % 2 else None
        clips[place] = replace(clip, others={m: r for m, r in clip.others.items() if m != lost})
    cut = next(clip for clip in clips if clip.split == "test" and len(clip.others) == 3)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    clips[clips.index(cut)] = replace(cut, others={**cut.others, "image": Reference(bad)})
    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, clips)
    values = settings_of(settings, manifest, tmp_path, modalities="image,depth,notes", objective__anchor="depth")
    values |= {"data.missing": "mask", "evaluate.missing": "mask", "data.cache": "memory"}
    config = load_config("demo", values)
    assert train(config, console=Console(quiet=True)).step == 3
    best, test = config.folder / "checkpoints" / "best", [clip for clip in clips if clip.split == "test"]

    def having(*names: str) -> int:
        return sum(all(m in c.others and c.others[m].path != bad for m in names) for c in test)

    masked = evaluate_checkpoint(best, embeddings_out=tmp_path / "e.npz")
    assert masked.meta["missing_policy"] == "mask" and masked.meta["joint_score"] == "span"
    assert masked.metrics["image2depth"]["clips"] == having("image", "depth")
    assert masked.metrics["depth2notes"]["clips"] == having("depth", "notes")
    either = having("depth", "image") + having("depth", "notes") - having("depth", "image", "notes")
    assert masked.metrics["depth2image+notes"]["clips"] == either
    dropped = evaluate_checkpoint(best, missing="drop", out=tmp_path / "m.json")
    complete = having("image", "depth", "notes")
    assert 0 < complete < len(test) - 1
    assert {row["clips"] for row in dropped.metrics.values()} == {complete} == {dropped.meta["clips"]}
    with pytest.raises(UserError, match="cannot be evaluated: .* missing"):
        evaluate_checkpoint(best, missing="fail", out=tmp_path / "f.json")
    lines = [line for line in read_log(config.folder / "log.jsonl") if line["kind"] == "train"]
    for name in ("image", "depth", "notes"):  # two batches of six are all twelve clips
        trained = sum(line["rows"][name] for line in lines[:2])
        assert trained == sum(clip.split == "train" and name in clip.others for clip in clips) < 12


def test_a_checkpoint_of_text_needs_its_tokenizer(settings: dict[str, Any], pictured: Path, tmp_path: Path) -> None:
    config = load_config("demo", settings_of(settings, pictured, tmp_path, modalities="text,notes", train__steps=1))
    train(config, console=Console(quiet=True))
    last = config.folder / "checkpoints" / "last"
    assert find_checkpoint(last) == last
    (last / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"not a whole checkpoint: tokenizer\.json not there"):
        find_checkpoint(last)


def test_as_commands(
    settings: dict[str, Any], pictured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = settings_of(settings, pictured, tmp_path, modalities="image,notes,depth", objective__anchor="notes")
    (tmp_path / "bare").mkdir()
    clips = read_manifest(pictured)
    write_manifest(
        tmp_path / "bare" / "manifest.jsonl", [replace(c, captions=(), video=None, audio=None) for c in clips]
    )
    values["data.manifest"] = str(tmp_path / "bare" / "manifest.jsonl")  # no tokenizer beside it
    options = [f"{'--' * (place % 2)}{name}={value}" for place, (name, value) in enumerate(values.items())]
    assert main(["train", "--config", "demo", *options]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "12 training and 6 validation clips, image, notes, depth" in out and "image2notes" in out
    folder = tmp_path / "runs" / "demo"
    assert main(["evaluate", "--checkpoint", str(folder / "checkpoints" / "best"), "--missing", "mask"]) == 0
    out = capsys.readouterr().out
    assert "notes2image+depth" in out and "6 clips with 0 captions, missing: mask" in out
    assert json.loads((folder / "metrics.json").read_text())["_meta"]["missing_policy"] == "mask"
    assert main(["train", "--config", str(folder / "config.yaml"), "--model.others.depth.hidden-size", "8"]) == 2
    assert "model.others.depth.hidden_size is 16 there and 8 here" in capsys.readouterr().err
