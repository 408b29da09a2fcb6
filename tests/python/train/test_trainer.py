"""The loop: results in place, exact resume, clean stops, refusals that leave nothing behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import mover
from mover import reference
from mover.cli import main
from mover.config import Config
from mover.configs import load_config
from mover.data.collate import Collate
from mover.data.manifest import read_manifest, write_manifest
from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.losses import Objective, build_objective
from mover.models.model import MoverModel
from mover.train import trainer
from mover.train.checkpoint import FILES
from mover.train.logging import read_log
from mover.train.optimizer import schedule
from mover.train.run_folder import RunFolder
from mover.train.trainer import train

SETS = {
    "objective.preset": "mover-sets", "objective.pool": 1.0, "objective.plan_targets": 1.0,
    "objective.matching.start": 0.0, "objective.matching.refresh": 1, "objective.matching.threshold": 0.0,
    "data.aligned_fraction": 0.5, "data.aligned_rows": 2, "train.diagnose_every": 1,
}  # fmt: skip
DIRECTIONS = ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"]


@pytest.fixture(autouse=True)
def pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these runs; the first test has real ones."""
    if request.node.name != "test_a_run_leaves_everything_in_its_folder":
        monkeypatch.setattr(trainer, "draw_curves", lambda log, path, title: path.write_text(title))
        monkeypatch.setattr(trainer, "draw_plans", lambda plans, path, title: path.write_text(title))


def quiet() -> Console:
    return Console(quiet=True)


def losses(config: Config) -> dict[int, dict[str, float]]:
    return {line["step"]: line["terms"] for line in read_log(config.folder / "log.jsonl") if line["kind"] == "train"}


def changed(config: Config, settings: dict[str, Any], **values: Any) -> Config:
    names = {name.replace("__", "."): value for name, value in values.items()}
    return load_config("demo", {**settings, "output": str(config.output), **names})


def test_a_run_leaves_everything_in_its_folder(config: Config) -> None:
    outcome = train(config, console=quiet())
    assert (outcome.step, outcome.signum) == (4, None)
    folder = config.folder
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoints", "config.yaml", "curves.png", "log.jsonl", "plan.png", "plans"
    ]  # fmt: skip
    for name in ("last", "best"):
        assert sorted(p.name for p in (folder / "checkpoints" / name).iterdir()) == sorted(FILES)
    for name in ("curves.png", "plan.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert load_config(folder / "config.yaml") == config

    lines = read_log(folder / "log.jsonl")
    began = lines.pop(0)
    assert (began["kind"], began["step"], began["device"], began["training_clips"]) == ("run", 0, "cpu", 12)
    assert (began["version"], began["torch"]) == (mover.__version__, torch.__version__)
    assert began["parameters"]["all"] == began["parameters"]["learning"] > 0
    steps = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    for line in steps:
        assert {"loss", "terms", "lr", "temperatures", "grad_norm", "samples_per_second"} <= line.keys()
        assert line["loss"] == line["terms"]["total"]
        assert line["temperatures"]
        assert line["grad_norm"] > 0
        factor = schedule(line["step"] - 1, 4, config.optimizer)
        assert list(line["lr"].values()) == pytest.approx([factor * config.optimizer.lr] * len(line["lr"]))
        assert ("mover" in line["terms"]) == (line["step"] == 4)  # starts half-way through the four steps
    checks = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in checks] == [2, 4]
    assert list(checks[0]["R@1"]) == DIRECTIONS
    assert outcome.best is not None
    assert outcome.best["score"] == pytest.approx(max(line["mean"] for line in checks), abs=1e-3)


@pytest.mark.parametrize(
    "options",
    [{}, {"objective.groups": "sample", "objective.mover_start": 0.0, "objective.mover_warmup": 0.0}, SETS],
    ids=["default", "sampled groups", "sets and a pool"],
)
def test_resumed_losses_are_those_of_the_uninterrupted_run(
    config: Config, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    settings = {**settings, **options}
    config = changed(config, settings)
    train(config, console=quiet())
    cut = changed(config, settings, name="cut")

    def stop_after(step: int) -> Any:
        def display_step(self: Any, done: int, loss: float, left: float) -> None:
            if done == step:
                os.kill(os.getpid(), signal.SIGINT)

        return display_step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Display, "step", stop_after(1))
        first = train(cut, console=quiet())
        assert (first.step, first.signum) == (1, signal.SIGINT)
        patch.setattr(trainer.Display, "step", stop_after(3))
        second = train(cut, resume=True, console=quiet())
        assert (second.step, second.signum) == (3, signal.SIGINT)
    torch.manual_seed(99)
    third = train(cut, resume=True, console=quiet())
    assert (third.step, third.signum) == (4, None)
    assert losses(cut) == losses(config)
    checks = [
        [line for line in read_log(c.folder / "log.jsonl") if line["kind"] == "validation"] for c in (config, cut)
    ]
    assert checks[0] == checks[1]
    whole, pieces = ((c.folder / "checkpoints" / "last" / "model.safetensors").read_bytes() for c in (config, cut))
    assert whole == pieces


def test_plans_of_the_same_clips_are_kept_at_every_validation(
    config: Config, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, np.ndarray]] = []
    chosen: list[list[str]] = []
    real = trainer._plans

    def watched(objective: Any, embeddings: Embeddings, size: int, *about: Any) -> dict[str, np.ndarray]:
        made.append(real(objective, embeddings, size, *about))
        chosen.append(embeddings.ids[:size])
        return made[-1]

    monkeypatch.setattr(trainer, "_plans", watched)
    monkeypatch.setattr(trainer, "PLAN_CLIPS", 5)
    train(config, console=quiet())
    folder = RunFolder(config.folder)
    assert sorted(path.name for path in folder.plans.iterdir()) == ["step-000002.npz", "step-000004.npz"]
    kept = folder.read_plans()
    assert list(kept) == [2, 4] and chosen[0] == chosen[1]
    for plans, original in zip(kept.values(), made, strict=False):
        assert list(plans) == ["text-video", "text-audio", "video-audio"]
        for pair, plan in plans.items():
            assert plan.shape == (5, 5)
            np.testing.assert_allclose(plan, 5 * original[pair], rtol=2**-11, atol=2**-25)
            np.testing.assert_allclose(plan.sum(1), 1, atol=5e-3)

    again = changed(config, settings, train__steps=1)
    train(again, overwrite=True, console=quiet())
    assert list(folder.read_plans()) == [1]  # none of the run that was there
    train(changed(config, settings, data__validation_split="none"), overwrite=True, console=quiet())
    assert folder.read_plans() == {}


def test_plans_beyond_the_checkpoint_are_dropped_on_resume(config: Config, settings: dict[str, Any]) -> None:
    train(changed(config, settings, train__steps=2), console=quiet())
    folder = RunFolder(config.folder)
    shutil.copy(folder.plans / "step-000002.npz", folder.plans / "step-000003.npz")
    before = (folder.plans / "step-000002.npz").read_bytes()
    train(config, resume=True, console=quiet())
    assert list(folder.read_plans()) == [2, 4]
    assert (folder.plans / "step-000002.npz").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"PK not a zip"])
def test_a_damaged_file_of_plans_is_named(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.plans.mkdir()
    (folder.plans / "step-000010.npz").write_bytes(content)
    with pytest.raises(UserError, match="step-000010.npz is not a whole file of plans.*remove it"):
        folder.read_plans()
    np.savez(folder.plans / "step-000010.npz", **{"text-video": np.ones((2, 3))})
    with pytest.raises(UserError, match=r"'text-video' has the shape \(2, 3\); expected finite \(B, B\)"):
        folder.read_plans()


def test_equal_seeds_give_equal_runs_and_others_do_not(config: Config, settings: dict[str, Any]) -> None:
    runs = [changed(config, settings, name=f"r{i}", seed=seed, train__steps=1) for i, seed in enumerate((0, 0, 1))]
    for run in runs:
        train(run, console=quiet())
    assert losses(runs[0]) == losses(runs[1])
    assert losses(runs[0])[1] != losses(runs[2])[1]


def test_lines_of_the_log_beyond_the_checkpoint_are_dropped_on_resume(config: Config, settings: dict[str, Any]) -> None:
    train(changed(config, settings, train__steps=2), console=quiet())
    log = config.folder / "log.jsonl"
    with open(log, "a") as file:  # as a run that died after its last checkpoint leaves it
        file.write(json.dumps({"kind": "train", "step": 3, "loss": -1, "terms": {}}) + "\n" + '{"kind": "tr')
    train(config, resume=True, console=quiet())
    assert sorted(losses(config)) == [1, 2, 3, 4]
    assert all(line.get("loss", 0) >= 0 for line in read_log(log))
    assert all(json.loads(line) for line in log.read_text().splitlines())


def test_a_finished_run_resumes_to_nothing(config: Config, settings: dict[str, Any]) -> None:
    short = changed(config, settings, train__steps=1)
    train(short, console=quiet())
    (short.folder / "plan.png").unlink()
    before = (short.folder / "log.jsonl").read_text()
    outcome = train(short, resume=True, console=quiet())
    assert outcome.step == 1
    assert (short.folder / "log.jsonl").read_text() == before
    assert (short.folder / "plan.png").exists()


def test_a_folder_in_use_is_refused_and_left_alone(config: Config, settings: dict[str, Any]) -> None:
    short = changed(config, settings, train__steps=1)
    train(short, console=quiet())
    (short.folder / "notes.txt").write_text("mine")
    content = {p: p.stat().st_mtime_ns for p in short.folder.rglob("*")}
    other = changed(config, settings, train__steps=1, optimizer__lr=1e-4)

    with pytest.raises(UserError, match=r"already holds a run with these settings.*--resume.*--overwrite.*--name"):
        train(short, console=quiet())
    with pytest.raises(UserError, match=r"with other settings \(optimizer.lr is 0.0025 there and 0.0001 here\)"):
        train(other, console=quiet())
    with pytest.raises(UserError, match=r"cannot be resumed with other settings: optimizer.lr is 0.0025 there"):
        train(other, resume=True, console=quiet())
    with pytest.raises(UserError, match="exclude each other"):
        train(other, resume=True, overwrite=True, console=quiet())
    with pytest.raises(UserError, match="manifest"):  # bad data is found before anything is removed
        train(changed(config, settings, data__manifest="gone.jsonl"), overwrite=True, console=quiet())
    assert {p: p.stat().st_mtime_ns for p in short.folder.rglob("*")} == content

    train(other, overwrite=True, console=quiet())
    assert load_config(other.folder / "config.yaml").optimizer.lr == 1e-4
    assert (other.folder / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="no checkpoint at"):
        train(changed(config, settings, name="new"), resume=True, console=quiet())
    assert not (config.output / "new").exists()


def spoil(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make the first term of the loss NaN at these steps, counted from 1."""
    real = Objective.forward

    def spoiled(self: Objective, *inputs: Any, step: int, **about: Any) -> dict[str, torch.Tensor]:
        terms = dict(real(self, *inputs, step=step, **about))
        if step + 1 in steps:
            name = next(iter(terms))
            terms |= {name: terms[name] * float("nan"), "total": terms["total"] * float("nan")}
        return terms

    monkeypatch.setattr(Objective, "forward", spoiled)


@pytest.mark.parametrize("step", [1, 3])
def test_a_loss_that_is_not_finite_stops_the_run_with_its_name(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = load_config("demo", {**settings, "output": str(tmp_path), "train.skip_limit": 0})
    kept = "There is no checkpoint yet" if step == 1 else "The last checkpoint is .*last"
    said = f"Step {step}: the loss term '(?!total)[a-z_]+' is nan; .*{kept}.*optimizer.lr"
    with monkeypatch.context() as patch:
        spoil(patch, step)
        with pytest.raises(UserError, match=said):
            train(config, console=quiet())
    assert (config.folder / "checkpoints" / "last").exists() == (step > 1)
    if step > 1:  # the checkpoint is good: go on from it without the fault
        assert train(config, resume=True, console=quiet()).step == 4


def test_steps_that_are_not_finite_are_left_out_and_told(
    config: Config, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spoil(monkeypatch, 2, 4)
    assert train(config, console=quiet()).step == 4
    told = [line for line in read_log(config.folder / "log.jsonl") if line["kind"] == "warning"]
    assert [(line["step"], line["symptom"]) for line in told] == [(2, "skipped"), (4, "skipped")]
    assert "is nan; the step was left out (1 in a row" in told[0]["message"]
    assert sorted(losses(config)) == [1, 3]
    weights = load_file(config.folder / "checkpoints" / "last" / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())

    always = load_config("demo", {**settings, "output": str(tmp_path / "always"), "train.skip_limit": 2})
    spoil(monkeypatch, 1, 2, 3, 4)
    with pytest.raises(UserError, match=r"Step 3: .*left out, as were the 2 before it, and training stopped"):
        train(always, console=quiet())


def test_a_gradient_or_an_embedding_that_is_not_finite_changes_nothing(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MoverModel.forward

    def infinite(self: MoverModel, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        rows = real(self, batch)
        return {**rows, "audio": rows["audio"] * float("inf")}

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf")

    def steep(self: MoverModel, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {m: Backward.apply(rows) for m, rows in real(self, batch).items()}

    for forward, said in ((infinite, "embeddings of audio are not finite"), (steep, "the norm of the gradient is")):
        monkeypatch.setattr(MoverModel, "forward", forward)
        saved: list[dict[str, Any]] = []
        monkeypatch.setattr(RunFolder, "save", lambda folder, *, state, **rest: saved.append(state))  # noqa: B023
        monkeypatch.setattr(trainer, "_embed", lambda *given: None)
        monkeypatch.setattr(trainer, "_validate", lambda *given: {"T2V": {"R@1": 0.0, "clips": 6}})
        monkeypatch.setattr(trainer, "_plans", lambda *given: {})
        assert train(config, overwrite=True, console=quiet()).step == 4
        told = [line["message"] for line in read_log(config.folder / "log.jsonl") if line["kind"] == "warning"]
        assert len(told) == 4 and all(said in message for message in told)
        assert saved[-1]["skipped"] == 4 and not saved[-1]["optimizer"]["state"]


def test_clips_without_a_modality(config: Config, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third clip of a batch without sound: whatever stands in for it changes nothing."""
    collate = Collate.__call__
    settings = {**settings, "data.validation_split": "none"}
    runs = [changed(config, settings, name=name) for name in ("complete", "silence", "noise")]
    for run, filling in zip(runs, (None, 0.0, 0.25), strict=True):

        def filled(self: Collate, samples: Any, filling: float | None = filling) -> dict[str, Any]:
            batch = collate(self, samples)
            if filling is not None:
                batch["present"]["audio"][::3] = False
                batch["audio"]["waveform"][::3] = filling
            return batch

        monkeypatch.setattr(Collate, "__call__", filled)
        assert train(run, console=quiet()).step == 4
    complete, silence, noise = map(losses, runs)
    assert silence == noise
    assert all(silence[1][name] != complete[1][name] for name in ("volume_contrastive", "pairwise"))
    assert silence[4]["mover"] != complete[4]["mover"]


def with_gaps(manifest: Path, folder: Path) -> Path:
    """The manifest with every third training clip mute and every fourth blind, and one whose file is no video."""
    clips = read_manifest(manifest)
    training = [i for i, clip in enumerate(clips) if clip.split == "train"]
    for place, i in enumerate(training):
        if place % 3 == 0:
            clips[i] = replace(clips[i], audio=None)
        if place % 4 == 1:
            clips[i] = replace(clips[i], video=None)
    broken = folder / "broken.mp4"
    broken.write_bytes(b"not a video")
    clips[training[2]] = replace(clips[training[2]], video=broken)
    write_manifest(folder / "manifest.jsonl", clips)
    shutil.copy(manifest.parent / "tokenizer.json", folder)
    return folder / "manifest.jsonl"


def test_training_on_clips_that_lack_modalities(
    settings: dict[str, Any],
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gaps = with_gaps(manifest, tmp_path)
    extra = {"data.manifest": str(gaps), "data.missing": "mask", "model.text.dropout": 0.0, "train.batch_size": 12}
    run = load_config("demo", {**settings, **extra, "output": str(tmp_path / "runs")})
    batches: list[dict[str, Any]] = []
    forward, objective = MoverModel.forward, Objective.forward

    def checked(model: MoverModel, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        z = forward(model, batch)
        batches.append(batch)
        with torch.no_grad():  # one clip at a time, and only what it has
            for m, rows in z.items():
                for i in range(12):
                    expected = torch.eye(16)[0]
                    if batch["present"][m][i]:
                        expected = model.encode(m, {key: x[i : i + 1] for key, x in batch[m].items()})[0]
                    torch.testing.assert_close(rows[i], expected, atol=1e-5, rtol=0)
        return z

    def passed_on(self: Objective, z: Any, progress: float, **about: Any) -> Any:
        assert all(torch.equal(flags, batches[-1]["present"][m]) for m, flags in about["present"].items())
        assert about["aligned"] == 12
        return objective(self, z, progress, **about)

    monkeypatch.setattr(MoverModel, "forward", checked)
    monkeypatch.setattr(Objective, "forward", passed_on)
    train(run)
    out = " ".join(capsys.readouterr().out.split())
    rows = {"text": 12, "video": 8, "audio": 8}
    assert len(batches) == 4
    for batch in batches:
        assert {m: int(flags.sum()) for m, flags in batch["present"].items()} == rows
    for line in read_log(run.folder / "log.jsonl"):
        if line["kind"] == "train":
            assert line["rows"] == rows
    assert "12 training (3 without video, 4 without audio) and 6 validation clips" in out
    assert (
        "12 training clips listed (4 without video, 4 without audio); rows trained on: 48 text, 32 video, 32 audio"
        in out
    )


def test_plans_of_validation_clips_with_gaps(config: Config) -> None:
    rows = {m: torch.nn.functional.normalize(torch.randn(5, 8), dim=1).numpy() for m in ("text", "video", "audio")}
    owner = np.array([0, 0, 1, 2, 3])  # clip 4 has no caption
    flags = {"text": [1, 1, 1, 1, 0], "video": [1, 0, 1, 0, 1], "audio": [1, 1, 0, 0, 1]}
    present = {m: np.array(values, dtype=bool) for m, values in flags.items()}
    embeddings = Embeddings([f"clip{i}" for i in range(5)], rows, owner, present)
    objective = build_objective(config.objective, ("text", "video", "audio"))
    plans = trainer._plans(objective, embeddings, 64, torch.device("cpu"))  # of clips 0, 1, 2 and 4
    assert list(plans) == ["text-video", "text-audio", "video-audio"]
    for first, second in (("text", "video"), ("text", "audio"), ("video", "audio")):
        places = [[i for i in (0, 1, 2, 4) if present[m][i]] for m in (first, second)]
        some = [
            rows[m][np.searchsorted(owner, p) if m == "text" else p]
            for m, p in zip((first, second), places, strict=True)
        ]
        expected = np.zeros((5, 5))
        expected[np.ix_(*places)] = reference.transport(*map(torch.from_numpy, some), epsilon=0.1).plan
        np.testing.assert_allclose(plans[f"{first}-{second}"], expected[np.ix_([0, 1, 2, 4], [0, 1, 2, 4])], atol=2e-3)


def test_two_modalities_and_bfloat16(config: Config, settings: dict[str, Any]) -> None:
    run = changed(
        config,
        settings,
        modalities="text,audio",
        train__precision="bfloat16",
        train__steps=2,
        objective__preset="pairwise",
    )
    outcome = train(run, console=quiet())
    assert outcome.best is not None
    assert list(outcome.best["R@1"]) == ["T2A", "A2T"]


def test_without_a_validation_split_the_best_is_the_last(config: Config, settings: dict[str, Any]) -> None:
    run = changed(config, settings, data__validation_split="none", train__steps=1)
    assert train(run, console=quiet()).best is None
    assert (run.folder / "checkpoints" / "best" / "model.safetensors").exists()
    assert (run.folder / "curves.png").exists()


def test_plain_lines_where_there_is_no_terminal(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    train(config)
    out = capsys.readouterr().out
    assert re.search(r"step 4/4  loss \d+\.\d+  R@1 \d+\.\d  left 0:00", out)
    assert re.search(r"step 2: validation R@1  T2V \d", out)
    assert "next: mover evaluate --checkpoint" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_its_code_and_says_how_to_go_on(
    config: Config, settings: dict[str, Any], capsys: pytest.CaptureFixture[str], signum: int, code: int
) -> None:
    def display_step(self: Any, done: int, loss: float, left: float) -> None:
        os.kill(os.getpid(), signum)

    options = [f"--{name}={value}" for name, value in {**settings, "output": config.output}.items()]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Display, "step", display_step)
        assert main(["train", "--config", "demo", *options]) == code
    out = capsys.readouterr().out
    assert "stopped after step 1 of 4" in out
    written = config.folder / "config.yaml"
    assert f"go on with: mover train --config {written} --resume" in out
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert main(["train", "--config", str(written), "--resume"]) == 0
    assert sorted(losses(config)) == [1, 2, 3, 4]


def test_a_second_signal_quits_at_once() -> None:
    code = (
        "import time\nfrom mover.train.interrupt import StopRequest\n"
        "with StopRequest() as stop:\n    print('ready', flush=True)\n"
        "    while not stop.requested: time.sleep(0.01)\n"
        "    print('noted', flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mover.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        for word in ("ready", "noted"):
            assert process.stdout.readline().strip() == word
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 143
    finally:
        process.kill()
        process.communicate()
