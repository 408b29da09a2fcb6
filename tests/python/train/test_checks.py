"""The checks before a run: all faults at once, each with its setting and a remedy, and nothing touched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mover.cli import main
from mover.config import Config
from mover.configs import load_config
from mover.data.manifest import Clip, write_manifest
from mover.errors import Problems
from mover.losses import pool
from mover.train import checks as checks_module
from mover.train.checks import check_run
from mover.train.trainer import train


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))  # where no run is in the way


def problems(config: Config, **options: bool) -> list[str]:
    with pytest.raises(Problems) as raised:
        check_run(config, **options)
    return list(raised.value.problems)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_all_is_well(config: Config, tmp_path: Path) -> None:
    ready = check_run(config)
    assert (ready.checkpoint, ready.warnings, len(ready.train_set)) == (None, [], 12)
    assert ready.validation is not None and len(ready.validation.clips) == 6
    assert "24 clips: train 12, val 6, test 6" in ready.findings["data.manifest"]
    assert ready.findings["video files"] == ready.findings["audio files"] == "the first 12 are there"
    assert ready.findings["output"] == f"{config.folder}, free"
    assert files(tmp_path) == []


def test_every_fault_is_told_at_once(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder of runs should be")
    there = files(tmp_path)
    config = load_config(
        "demo",
        {
            **settings,
            "output": str(tmp_path / "runs"),
            "train.device": "tpu",
            "data.tokenizer": str(tmp_path / "no.json"),
            "data.train_split": "trian",
            "model.text.checkpoint": str(tmp_path / "roberta"),
            "model.video.checkpoint": str(tmp_path),
            "model.audio.checkpoint": str(tmp_path / "beats.pt"),
        },
    )
    told = problems(config)
    assert [problem.partition(":")[0] for problem in told] == [
        "output", "train.device", "data.tokenizer", "model.text.checkpoint", "model.video.checkpoint",
        "model.audio.checkpoint", "data.train_split",
    ]  # fmt: skip
    assert "is a file and cannot hold" in told[0] and "must be auto, cpu, cuda" in told[1]
    assert "Set data.tokenizer" in told[2] and "is not a folder" in told[3] and "config.json cannot be read" in told[4]
    assert "there is no file" in told[5] and "The manifest has: test, train, val" in told[6]
    assert all("\n" not in problem for problem in told)
    assert files(tmp_path) == there


def test_objectives_that_do_not_fit_are_told_before_any_data_is_read(settings: dict[str, Any], tmp_path: Path) -> None:
    away = {**settings, "data.manifest": str(tmp_path / "no.jsonl")}
    nothing = {f"objective.{term}": 0 for term in ("mover", "volume_contrastive", "pairwise")}
    assert problems(load_config("demo", {**away, **nothing}))[0].startswith("objective: All weights of the objective")
    too_many = {"objective.groups": "sample", "objective.samples": 10**9}
    told = problems(load_config("demo", {**away, **too_many}))
    assert told[0].startswith("objective.samples = 1000000000 at a batch of 6 makes 6,000,000,000 groups of 3 modal")
    cyclic = {"objective.weights": "cyclic", "objective.volume": "log"}
    told = problems(load_config("demo", {**away, **cyclic}))
    assert told[0].startswith("objective.weights: cyclic is the product") and told[1].startswith("data.manifest: There")


def test_a_pool_beyond_memory_is_told_before_anything_is_decoded(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MEMORY_BOUND", 1000)
    partly = {"objective.preset": "mover-pool", "data.aligned_fraction": 0.5, "output": str(tmp_path / "runs")}
    (told,) = problems(load_config("demo", {**settings, **partly}))
    assert told.startswith("objective.pool matches 12 clips in one plan, about ")


def test_a_missing_manifest_is_told_once(settings: dict[str, Any], tmp_path: Path) -> None:
    told = problems(load_config("demo", {**settings, "data.manifest": str(tmp_path / "no.jsonl")}))
    assert len(told) == 1 and told[0].startswith("data.manifest: There is no manifest")
    told = problems(load_config("demo", {**settings, "data.manifest": str(tmp_path)}))
    assert len(told) == 1 and "cannot be read" in told[0]


def moved(manifest: Path, folder: Path, keep: int) -> Path:
    """The rows of a manifest with their media elsewhere, where those of the first `keep` training clips are."""
    folder.mkdir()
    lines = []
    for line in manifest.read_text().splitlines():
        row = json.loads(line)
        for modality in ("video", "audio"):
            name = Path(row[modality]).name
            row[modality] = name
            if row["split"] == "train" and len(lines) < keep:
                (folder / name).write_bytes((manifest.parent / "videos" / name).read_bytes())
        lines.append(json.dumps(row))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    (folder / "tokenizer.json").write_bytes((manifest.parent / "tokenizer.json").read_bytes())
    return folder / "manifest.jsonl"


def test_media_that_are_elsewhere(manifest: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    nowhere = moved(manifest, tmp_path / "none", keep=0)
    told = problems(load_config("demo", {**settings, "data.manifest": str(nowhere)}))
    first = json.loads(nowhere.read_text().splitlines()[0])["video"]
    assert [problem.partition(" exists")[0] for problem in told] == [
        f"data.manifest: not one of the first 12 {modality} files of the training clips"
        for modality in ("video", "audio")
    ]
    assert f"first {nowhere.parent / first}: put the media there, or import again" in told[0]
    some = moved(manifest, tmp_path / "some", keep=7)
    ready = check_run(load_config("demo", {**settings, "data.manifest": str(some)}))
    assert [w.partition(", first")[0] for w in ready.warnings] == [
        f"{modality} files: 5 of the first 12 are not there" for modality in ("video", "audio")
    ]


def test_only_the_first_media_are_looked_for(
    manifest: Path, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks_module, "FIRST_MEDIA", 3)
    some = moved(manifest, tmp_path / "some", keep=3)
    ready = check_run(load_config("demo", {**settings, "data.manifest": str(some)}))
    assert ready.warnings == [] and ready.findings["video files"] == "the first 3 are there"


def test_splits_and_batches(settings: dict[str, Any], tmp_path: Path) -> None:
    other = {"data.validation_split": "dev", "data.test_split": "eval"}
    ready = check_run(load_config("demo", {**settings, **other}))
    assert [w.partition(":")[0] for w in ready.warnings] == ["data.test_split", "data.validation_split"]
    assert ready.validation is None
    told = problems(load_config("demo", {**settings, "train.batch_size": "13"}))
    assert told == [
        "train.batch_size: A batch of 13 needs as many clips, and only 12 of 12 can be used. "
        "Set train.batch_size to less."
    ]
    write_manifest(tmp_path / "text.jsonl", [Clip("a", ("one",)), Clip("b", ("two",))])
    tokenizer = str(Path(settings["data.manifest"]).parent / "tokenizer.json")
    mute = {"data.manifest": str(tmp_path / "text.jsonl"), "data.tokenizer": tokenizer, "data.missing": "mask"}
    told = problems(load_config("demo", {**settings, **mute}))
    assert len(told) == 1 and "data.manifest: None of 2 clips has video" in told[0]


def test_runs_without_text_need_no_tokenizer(settings: dict[str, Any], tmp_path: Path) -> None:
    silent = {"modalities": "video,audio", "objective.anchor": "video", "data.tokenizer": str(tmp_path / "no.json")}
    ready = check_run(load_config("demo", {**settings, **silent}))
    assert ready.tokenizer is None and len(ready.train_set) == 12 and "data.tokenizer" not in ready.findings


def test_checkpoints_of_further_modalities(settings: dict[str, Any], tmp_path: Path) -> None:
    chart = {"modalities": "text,video,chart", "model.others.chart.kind": "image"}
    told = problems(load_config("demo", {**settings, **chart, "model.others.chart.checkpoint": str(tmp_path / "vit")}))
    assert [problem.partition(": ")[0] for problem in told] == [
        "model.others.chart.checkpoint", "data.manifest", "data.validation_split"
    ]  # fmt: skip
    assert "is not a folder" in told[0] and all("None of" in problem for problem in told[1:])


def test_validation_clips_that_lack_a_modality(manifest: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        row |= {modality: str(manifest.parent / row[modality]) for modality in ("video", "audio")}
        if row["split"] == "val":
            row["status"] = {"video": "missing"}
    (tmp_path / "silent.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tokenizer = str(manifest.parent / "tokenizer.json")
    deaf = {"data.manifest": str(tmp_path / "silent.jsonl"), "data.tokenizer": tokenizer}
    told = problems(load_config("demo", {**settings, **deaf}))
    assert len(told) == 1 and told[0].startswith(
        "data.validation_split: None of 6 clips can be used; the last one: vid"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(config: Config, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "output: the folder" in problems(config)[0]
    tmp_path.chmod(0o700)


def test_a_folder_in_use(config: Config) -> None:
    assert "no checkpoint at" in problems(config, resume=True)[0]
    train(config)
    assert problems(config)[0].startswith(f"name: {config.folder} already holds a run")
    assert problems(config, resume=True, overwrite=True)[0].startswith("name: --resume and --overwrite exclude")
    assert check_run(config, resume=True).checkpoint == config.folder / "checkpoints" / "last"
    assert check_run(config, overwrite=True).findings["output"].endswith("where a run will be replaced")
    assert (config.folder / "log.jsonl").exists()


def test_the_command(
    settings: dict[str, Any], manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{name}={value}" for name, value in settings.items()]
    there = files(manifest.parent)
    assert main(["train", "--config", "demo", *words, f"output={tmp_path}", "--check"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("configuration: ") and "checked, and nothing stands in the way:" in said.out
    assert "audio files" in said.out and said.err == ""
    assert files(tmp_path) == [] and files(manifest.parent) == there
    wrong = ["train.device=tpu", "train.batch_size=99"]
    assert main(["train", "--config", "demo", *words, f"output={tmp_path}", *wrong]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("configuration: ")
    first, *rest = said.err.splitlines()
    assert first == "error: 2 things to put right:"
    assert [line.partition(":")[0] for line in rest] == ["  train.device", "  train.batch_size"]
    assert main(["train", "--config", "demo", *words, f"output={tmp_path}", "train.device=tpu"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: train.device: The device must be auto, cpu, cuda or cuda:N, got 'tpu'."
    ]
