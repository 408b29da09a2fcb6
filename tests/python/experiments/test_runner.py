"""Sweeps: what is made, skipped, resumed, refused and lost when something goes wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mover.configs import load_config
from mover.errors import UserError
from mover.experiments.data import check_zero_shot, prepare
from mover.experiments.definition import Definition, load_definition
from mover.experiments.plan import plan_runs
from mover.experiments.record import state_of
from mover.experiments.runner import Sweep, make_runs
from mover.train import trainer
from mover.train.logging import RunLog, read_log

from .conftest import EXPERIMENT, make_manifest

Define = Callable[..., Definition]
here = pytest.mark.usefixtures("in_process")


def sweep(definition: Definition, overwrite: bool = False, parallel: int = 1, **plan: object) -> tuple[Sweep, str]:
    said = io.StringIO()
    runs = plan_runs(definition, **plan)  # type: ignore[arg-type]
    console = Console(file=said, width=200)
    return make_runs(definition, runs, parallel=parallel, overwrite=overwrite, console=console), said.getvalue()


def test_every_run_is_made_once_in_processes_side_by_side(define: Define) -> None:
    done, said = sweep(define(), parallel=2, seeds=1)
    names = ["plain seed 0", "volume seed 0"]
    assert sorted(done.made) == names and not done.failed and done.signum is None
    assert all(f"] {name}: one2two R@1 " in said for name in names) and "[2/2]" in said
    record = Path("runs/experiments/trial/volume/seed-0/result.json")
    content = json.loads(record.read_text())
    assert content["settings"]["objective"]["volume_contrastive"] == 1.0 and content["hardware"]["threads"] == 1
    assert [step for step, _ in content["validation"]] == [3, 6]
    cost = content["cost"]
    assert cost["ms a step"] > 0 and cost["ms a step, mean"] > 0 and cost["MiB"] >= 0
    assert "step 6/6" in record.with_name("output.txt").read_text()
    before = record.stat().st_mtime_ns
    again, said = sweep(define(), seeds=1)
    assert sorted(again.skipped) == names and not again.made
    assert record.stat().st_mtime_ns == before and "2 of 2 runs are complete" in said


@here
def test_a_run_is_that_of_mover_train_and_mover_evaluate(define: Define, tmp_path: Path) -> None:
    from mover.evaluate.run import evaluate_checkpoint

    sweep(define(), seeds=1, only=["volume"])
    run = plan_runs(define(), seeds=1, only=["volume"])[0]
    own = load_config(run.folder.config, {"output": str(tmp_path / "own")})
    trainer.train(own, console=Console(file=io.StringIO()))
    result = evaluate_checkpoint(own.folder / "checkpoints" / "best", device="cpu")
    record = json.loads(run.record.read_text())
    assert record["metrics"]["test"]["one2two"]["R@1"] == result.metrics["one2two"]["R@1"]
    assert [line["loss"] for line in read_log(own.folder / "log.jsonl") if line["kind"] == "train"] == [
        line["loss"] for line in read_log(run.folder.log) if line["kind"] == "train"
    ]


@here
def test_an_interrupted_run_goes_on_from_its_checkpoint(define: Define, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = sweep(define(), seeds=1, only=["plain"], overrides={"output": "whole"})
    assert whole.made
    run = plan_runs(define(), seeds=1, only=["plain"])[0]
    real = RunLog.write

    def write(log: RunLog, kind: str, step: int, **fields: Any) -> None:
        if step == 3:
            raise MemoryError
        real(log, kind, step, **fields)

    with monkeypatch.context() as patched:
        patched.setattr(RunLog, "write", write)
        with pytest.raises(MemoryError):  # after the checkpoint of step 2
            trainer.train(run.config, console=Console(file=io.StringIO()))
    assert state_of(run) == ("unfinished", "")
    done, _ = sweep(define(), seeds=1, only=["plain"])
    assert done.made == ["plain seed 0"]
    record = json.loads(run.record.read_text())
    straight = json.loads(Path("whole/trial/plain/seed-0/result.json").read_text())
    assert record["resumed"] and not straight["resumed"]
    assert record["metrics"] == straight["metrics"] and record["validation"] == straight["validation"]


@here
def test_other_settings_are_refused_and_replaced_only_when_asked(define: Define) -> None:
    sweep(define(), seeds=1, only=["plain"])
    with pytest.raises(UserError, match=r"plain/seed-0 holds a run of other settings: train.steps is 6 there and 4 "):
        sweep(define(), seeds=1, overrides={"train.steps": 4})
    runs = plan_runs(define(), seeds=1, only=["plain"])
    assert all(state_of(run)[0] == "done" for run in runs)
    done, _ = sweep(define(), overwrite=True, seeds=1, only=["plain"], overrides={"train.steps": 4})
    assert len(done.made) == 1
    assert json.loads(runs[0].record.read_text())["settings"]["train"]["steps"] == 4
    assert state_of(plan_runs(define(), seeds=1, overrides={"train.threads": 2, "train.steps": 4})[0])[0] == "done"


@here
def test_a_failing_run_is_told_and_the_others_are_made(define: Define) -> None:
    text = EXPERIMENT.replace("{label: with volume, ", "{start_from: broken, ")
    text = text.replace("variants:\n", "variants:\n  broken: {settings: {data.train_split: nothing}, shown: false}\n")
    done, said = sweep(define(text), seeds=1)
    assert done.made == ["plain seed 0"]
    assert "No clip belongs to the split 'nothing'" in done.failed["broken seed 0"]
    assert done.failed["volume seed 0"] == "starts from broken seed 0, which failed"
    assert "broken seed 0: failed:" in said and "volume seed 0: left out:" in said
    again, _ = sweep(define(text), seeds=1)
    assert again.skipped == ["plain seed 0"] and set(again.failed) == {"broken seed 0", "volume seed 0"}


def test_ctrl_c_stops_the_runs_cleanly_and_the_same_command_goes_on(write: Callable[..., Path]) -> None:
    path = write()
    command = [sys.executable, "-m", "mover", "experiment", str(path), "--seeds", "1", "--only", "plain"]
    same = {"train.validate_every": 100000, "train.checkpoint_every": 100000}
    long = ["train.steps=100000", *(f"{name}={value}" for name, value in same.items())]
    sweeping = subprocess.Popen([*command, *long], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = Path("runs/experiments/trial/plain/seed-0")
    for _ in range(600):
        if any(line["step"] > 2 for line in read_log(folder / "log.jsonl")):
            break
        time.sleep(0.1)
    sweeping.send_signal(signal.SIGINT)
    said, _ = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 130, said
    assert "plain seed 0: stopped" in said and "the same command goes on" in said
    assert (folder / "checkpoints/last/state.pt").is_file() and not (folder / "result.json").exists()
    assert state_of(plan_runs(load_definition(path), overrides={"train.steps": 100000, **same})[0])[0] == "unfinished"


def test_no_run_outlives_a_sweep_that_is_killed(write: Callable[..., Path]) -> None:
    path = write()
    command = [sys.executable, "-m", "mover", "experiment", str(path), "--seeds", "1", "--only", "plain"]
    sweeping = subprocess.Popen([*command, "train.steps=100000"], stdout=subprocess.DEVNULL)
    log = Path("runs/experiments/trial/plain/seed-0/log.jsonl")
    for _ in range(600):
        if read_log(log):
            break
        time.sleep(0.1)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(sweeping.pid)], capture_output=True, text=True)
    worker = int(children.stdout.split()[0])
    sweeping.kill()
    sweeping.wait()
    for _ in range(300):
        try:
            os.kill(worker, 0)
            if Path(f"/proc/{worker}/stat").read_text().split(") ")[1].startswith("Z"):
                break
        except (ProcessLookupError, FileNotFoundError):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the run goes on")


@here
def test_zero_shot_refuses_clips_that_were_trained_on(define: Define, tmp_path: Path) -> None:
    other = make_manifest(tmp_path / "data", "other", prefix="other", seed=1)
    text = EXPERIMENT + f"evaluations:\n  away: {{manifest: {other}, zero_shot: true}}\n"
    definition = define(text)
    runs = plan_runs(definition, seeds=1, only=["plain"])
    check_zero_shot(definition, runs)
    done, _ = sweep(definition, seeds=1, only=["plain"])
    assert done.made and (runs[0].config.folder / "metrics-away.json").is_file()
    shared = define(EXPERIMENT + f"evaluations:\n  away: {{manifest: {other}, split: train, zero_shot: true}}\n")
    make_manifest(tmp_path / "data", "other", seed=1)
    with pytest.raises(UserError, match="'away' is to be zero-shot, but 16 of 16 clips .* first 'clip0'"):
        check_zero_shot(shared, plan_runs(shared, seeds=1))


@here
def test_another_evaluation_needs_no_new_training(define: Define) -> None:
    sweep(define(), seeds=1, only=["plain"])
    run = plan_runs(define(), seeds=1, only=["plain"])[0]
    weights = (run.folder.best / "model.safetensors").stat().st_mtime_ns
    more = EXPERIMENT + "evaluations:\n  test: {}\n  seen: {split: train}\n"
    done, _ = sweep(define(more), seeds=1, only=["plain"])
    assert done.made and set(json.loads(run.record.read_text())["metrics"]) == {"test", "seen"}
    assert (run.folder.best / "model.safetensors").stat().st_mtime_ns == weights


@here
def test_a_run_can_end_in_a_command(define: Define) -> None:
    text = EXPERIMENT + "evaluations:\n  test: {command: 'mover evaluate {run} --split val --json {json}'}\n"
    done, _ = sweep(define(text), seeds=1, only=["plain"])
    run = plan_runs(define(text), seeds=1, only=["plain"])[0]
    assert done.made and json.loads(run.record.read_text())["metrics"]["test"]["one2two"]["N"] == 6
    bad = define(EXPERIMENT + "evaluations:\n  test: {command: mover nonsense}\n")
    done, _ = sweep(bad, seeds=1, only=["plain"])
    assert "evaluation 'test': mover nonsense ended with 2" in done.failed["plain seed 0"]


def test_data_are_made_where_they_are_read(define: Define, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    text = EXPERIMENT + "prepare:\n  data/manifest.jsonl: [mover --version]\n  data/no.jsonl: [mover nonsense]\n"
    definition = define(text)
    own = {"data.manifest": "data/manifest.jsonl"}
    prepare(definition, plan_runs(definition, overrides=own), said.append)
    assert said == ["$ mover --version"] and capfd.readouterr().out.startswith("mover")
    prepare(definition, plan_runs(definition, overrides={"data.manifest": "mine.jsonl"}), said.append)
    assert len(said) == 1
    with pytest.raises(UserError, match="mover nonsense: ended with exit code 2"):
        prepare(definition, plan_runs(definition, overrides={"data.manifest": "data/no.jsonl"}), said.append)
