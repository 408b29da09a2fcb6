"""Training, from a configuration to a run folder. `train` is the whole story, top to bottom.

As a command: `mover train --config demo`, and after a stop `mover train --config runs/demo/config.yaml --resume`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from mover.config import Config
from mover.data.dataset import ClipDataset
from mover.data.loader import make_loader
from mover.errors import UserError
from mover.evaluate.embed import EvaluationSet, embed
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.metrics import retrieval_metrics
from mover.evaluate.pictures import draw_curves, draw_plans
from mover.losses import Objective, build_objective
from mover.losses.temperature import Temperature
from mover.models.model import MoverModel
from mover.train.built_from import built_from
from mover.train.checkpoint import (
    OBJECTIVE,
    copy_checkpoint,
    load_checkpoint_model,
    load_state,
    load_weights,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from mover.train.checks import check_run
from mover.train.collapse import CollapseWatch
from mover.train.device import autocast, peak_memory, to_device
from mover.train.diagnostics import diagnose, gradient_norms, is_due
from mover.train.frozen import serve_frozen_towers
from mover.train.interrupt import StopRequest
from mover.train.logging import Display, RunLog, read_log
from mover.train.optimizer import build_optimizer, learning_rates, schedule, set_learning_rate
from mover.train.run_folder import RunFolder
from mover.train.start import starting_model

PLAN_CLIPS = 64
"""At most so many validation clips, always the same, have their transport plans kept at every validation."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: steps done, best validation {"step", "score", "R@1"} or None, and the signal that stopped it."""

    folder: Path
    step: int
    best: dict[str, Any] | None
    signum: int | None


def train(config: Config, *, resume: bool = False, overwrite: bool = False, console: Console | None = None) -> Outcome:
    """Train as `config` says and leave the results in `config.folder`.

    Args:
        config: the run.
        resume: go on from checkpoints/last; on a CPU the losses are those of the run that was never stopped.
        overwrite: replace the run that is in the folder.
        console: where progress goes; default: standard output.

    Raises:
        UserError: bad data, a folder in use, a checkpoint that does not fit, a loss that is not finite.
    """
    console = console or Console()
    steps, batch_size = config.train.steps, config.train.batch_size

    # Folder, machine and data; nothing is written before everything has been checked.
    ready = check_run(config, resume=resume, overwrite=overwrite, progress=console.is_terminal)
    folder, checkpoint, device, tokenizer = ready.folder, ready.checkpoint, ready.device, ready.tokenizer
    train_set, validation = ready.train_set, ready.validation
    for warning in ready.warnings:
        console.print(warning, highlight=False, markup=False, soft_wrap=True)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.seed)
    if validation is not None:
        validation.prepare()

    # Model, objective, optimiser
    vocab_size = None if tokenizer is None else tokenizer.vocab_size
    if checkpoint is None:
        model = starting_model(config, vocab_size).to(device)
    else:
        model = load_checkpoint_model(checkpoint, config, config.data, vocab_size).to(device)
    pool = len(train_set), config.model.embed_dim
    objective = build_objective(config.objective, config.modalities, pool).to(device)
    optimizer = build_optimizer(config.optimizer, model.parameter_groups(config.optimizer), objective)
    start, best = 0, None
    if checkpoint is not None:
        state = load_state(checkpoint)
        load_weights(objective, checkpoint / OBJECTIVE)
        optimizer.load_state_dict(state["optimizer"])
        restore_random_state(state["random"])
        start, best = state["step"], state["best"]
        if start > steps:
            raise UserError(f"{checkpoint} is at step {start}, beyond train.steps = {steps}: give more steps.")
    loader = make_loader(train_set, batch_size, start_step=start, steps=steps)
    together = loader.batches.together
    every = [train_set, *([] if validation is None else validation.datasets.values())]
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    serve_frozen_towers(model, config, every, tokenizer, device, progress=console.is_terminal, say=say)
    folder.open(config, anew=checkpoint is None, keep_until=start)
    _announce(console, config, folder, model, train_set, validation, device, start)

    # The loop
    facts = {"device": str(device), "training_clips": len(train_set), "parameters": _parameters(model)}
    done, spent, embeddings = start, _Stopwatch(), None
    used, logged = Counter[str](), Counter[str]()
    watch = CollapseWatch(config, objective)
    with (
        StopRequest() as stop,
        RunLog(folder.log, keep_until=start) as log,
        Display(console, steps, start, config.train.log_every) as display,
    ):
        if start < steps:
            log.write("run", start, **built_from(), **facts, peak_mib=round(peak_memory(device), 1))
        watch.replay(read_log(folder.log))
        for batch in loader:
            factor = schedule(done, steps, config.optimizer)
            set_learning_rate(optimizer, factor)
            terms, norm, found = _update(model, objective, optimizer, batch, done, config, device)
            done += 1
            used.update({m: int(flags.sum()) for m, flags in batch["present"].items()})
            spent.step()
            display.step(done, terms["total"], spent.per_step * (steps - done))

            last = done == steps
            if last or done % config.train.log_every == 0:
                log.write(
                    "train", done, loss=terms["total"], terms=terms, lr=learning_rates(optimizer),
                    temperatures=_temperatures(objective), grad_norm=norm,
                    samples_per_second=round(batch_size * spent.rate(), 2), peak_mib=round(peak_memory(device), 1),
                    rows={m: used[m] - logged[m] for m in config.modalities},
                )  # fmt: skip
                logged.update(used - logged)

            if found is not None:
                found["temperatures"] = _temperatures(objective)
                log.write("diagnostics", done, **found)
                for alarm in watch.observe({"step": done, **found}):
                    log.write("warning", done, symptom=alarm.symptom, message=alarm.message)
                    display.say(alarm.message)

            improved = False
            if validation is not None and (last or done % config.train.validate_every == 0):
                embeddings = _embed(model, validation, config, device)
                metrics = _validate(embeddings, config, device)
                recall = {name: row["R@1"] for name, row in metrics.items()}
                counts = {name: int(row["clips"]) for name, row in metrics.items()}
                score = float(np.mean(list(recall.values())))
                improved = best is None or score >= best["score"]  # of equals the later
                if improved:
                    best = {"step": done, "score": score, "R@1": recall}
                log.write("validation", done, **{"R@1": recall}, clips=counts, mean=round(score, 4))
                display.validation(done, recall, counts, improved)
                folder.write_plans(done, _plans(objective, embeddings, min(batch_size, PLAN_CLIPS), device, together))
                spent.skip()

            if last or improved or stop.requested or done % config.train.checkpoint_every == 0:
                state = {"step": done, "best": best, "optimizer": optimizer.state_dict(), "random": random_state()}
                save_checkpoint(
                    folder.last, model=model, objective=objective, state=state, config=config, tokenizer=tokenizer
                )
                if improved or (validation is None and last):
                    copy_checkpoint(folder.last, folder.best)
                spent.skip()
            if stop.requested:
                break

    # Pictures
    draw_curves(read_log(folder.log), folder.curves, f"{config.name}: {done} of {steps} steps")
    if embeddings is None and validation is not None and not stop.requested:  # resumed at its last step
        embeddings = _embed(model, validation, config, device)
    plans = {} if embeddings is None else _plans(objective, embeddings, batch_size, device, together)
    if plans and not stop.requested:
        draw_plans(plans, folder.plan, f"{config.name}: transport plans of a validation batch, step {done}")
    _conclude(console, folder, done, steps, best, stop, train_set, used)
    return Outcome(folder.path, done, best, stop.signum)


def _update(
    model: MoverModel,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Any],
    step: int,
    config: Config,
    device: torch.device,
) -> tuple[dict[str, float], float, dict[str, Any] | None]:
    """One optimiser step; returns the loss terms, the norm of the gradient before clipping, and the diagnostics of a
    step that has some.

    Raises UserError, before anything is changed, when a term or the gradient is not finite.
    """
    model.train()
    batch = to_device(batch, device)
    with autocast(config.train.precision, device):
        z = model(batch)
    rows = {m: found.float() for m, found in z.items()}
    about = {name: batch[name] for name in ("present", "aligned", "together", "owner")}
    named = objective(rows, step / config.train.steps, step=step, **about)
    terms = dict(zip(named, torch.stack([term.detach().float() for term in named.values()]).tolist(), strict=True))
    bad = next((name for name, value in terms.items() if not np.isfinite(value)), None)
    if bad is not None:
        raise _diverged(f"the loss term '{bad}' is {terms[bad]}", step, config)
    optimizer.zero_grad(set_to_none=True)
    named["total"].backward()
    found = None
    if is_due(step + 1, config.train):
        found = diagnose(rows, objective, seed=config.seed, step=step + 1, **about)
        found["gradients"] = gradient_norms(model, objective)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    bound = config.optimizer.clip_norm
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, float("inf") if bound is None else bound))
    if not np.isfinite(norm):
        raise _diverged(f"the norm of the gradient is {norm}", step, config)
    optimizer.step()
    return terms, norm, found


def _diverged(what: str, step: int, config: Config) -> UserError:
    last = RunFolder(config.folder).last
    kept = f" The checkpoint before it is {last}." if last.exists() else " There is no checkpoint yet."
    return UserError(
        f"Step {step + 1}: {what}; training stopped and the step was not taken.{kept} "
        "Try a lower optimizer.lr, a longer optimizer.warmup_fraction or train.precision float32."
    )


def _embed(model: MoverModel, validation: EvaluationSet, config: Config, device: torch.device) -> Embeddings:
    size = config.evaluate.batch_size
    listed = embed(model, validation, batch_size=size, device=device, precision=config.train.precision)
    return listed.under(config.data.missing)


def _validate(embeddings: Embeddings, config: Config, device: torch.device) -> dict[str, dict[str, float]]:
    """The metrics by direction, the joint ones included."""
    anchor = config.objective.anchor if config.objective.anchor in embeddings.modalities else None
    metrics = retrieval_metrics(embeddings, device, anchor=anchor)
    if not metrics:
        needed = "two" if config.data.missing == "mask" else "all"
        raise UserError(f"No validation clip has {needed} of {', '.join(embeddings.modalities)}: repair the media.")
    return metrics


def _plans(
    objective: Objective, embeddings: Embeddings, size: int, device: torch.device, together: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Transport plans by pair, between the modalities of the first `size` clips that have two of them."""
    chosen = np.flatnonzero(np.sum(list(embeddings.present.values()), axis=0) >= 2)[:size]
    if len(chosen) < 2:
        return {}
    z, present = {}, {}
    for m in objective.modalities:
        if m not in embeddings.vectors:  # no clip has it
            width = next(iter(embeddings.vectors.values())).shape[1]
            z[m] = torch.zeros(len(chosen), width, device=device)
            present[m] = torch.zeros(len(chosen), dtype=torch.bool, device=device)
            continue
        rows, places = embeddings.vectors[m], chosen
        if m == "text":  # the first caption; a clip without one takes any row, which is not read
            places = np.searchsorted(embeddings.text_owner, chosen).clip(max=len(rows) - 1)
        z[m] = torch.from_numpy(rows[places]).to(device)
        present[m] = torch.from_numpy(embeddings.present[m][chosen]).to(device)
    plans = objective.plans(z, present, together=together)
    return {pair: plan.float().cpu().numpy() for pair, plan in plans.items()}


def _parameters(model: MoverModel) -> dict[str, int]:
    """How many numbers the model has, and how many of them learn."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"all": sum(n for n, _ in sizes), "learning": sum(n for n, learns in sizes if learns)}


def _temperatures(objective: Objective) -> dict[str, float]:
    """The temperature of each term that has one, learned or not."""
    found = ((name.split("."), m) for name, m in objective.named_modules() if isinstance(m, Temperature))
    return {path[-2]: float(module().detach()) for path, module in found}


class _Stopwatch:
    """Time per step, without what is spent on validation and checkpoints."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._steps = 0
        self._logged = (0.0, 0)
        self._since = time.perf_counter()

    def step(self) -> None:
        """A step is done."""
        now = time.perf_counter()
        self._seconds += now - self._since
        self._steps += 1
        self._since = now

    def skip(self) -> None:
        """What happened since the last step does not count."""
        self._since = time.perf_counter()

    @property
    def per_step(self) -> float:
        """Mean seconds per step."""
        return self._seconds / max(1, self._steps)

    def rate(self) -> float:
        """Steps per second since the last call."""
        seconds, steps = self._seconds - self._logged[0], self._steps - self._logged[1]
        self._logged = (self._seconds, self._steps)
        return steps / max(seconds, 1e-9)


def _announce(
    console: Console,
    config: Config,
    folder: RunFolder,
    model: MoverModel,
    train_set: ClipDataset,
    validation: EvaluationSet | None,
    device: torch.device,
    start: int,
) -> None:
    count = 0 if validation is None else len(validation.clips)
    millions, learning = (n / 1e6 for n in _parameters(model).values())
    text = (
        f"{folder.path}: {len(train_set)} training{_gaps(train_set)} and {count} validation clips, "
        f"{', '.join(config.modalities)}, {millions:.2f} M parameters"
        f"{'' if learning == millions else f', {learning:.2f} M of them learn'}, {device}, {config.train.precision}"
    )
    console.print(text + (f", from step {start}" if start else ""), highlight=False, markup=False, soft_wrap=True)


def _gaps(clips: ClipDataset) -> str:
    """How many clips were found to lack what so far, in brackets."""
    words = [f"{len(without)} without {modality}" for modality, without in clips.absent.items() if without]
    words += [f"{len(clips.skipped)} left out"] if clips.skipped else []
    return f" ({', '.join(words)})" if words else ""


def _conclude(
    console: Console,
    folder: RunFolder,
    done: int,
    steps: int,
    best: dict[str, Any] | None,
    stop: StopRequest,
    clips: ClipDataset,
    used: Counter[str],
) -> None:
    lines = []
    if _gaps(clips):
        rows = ", ".join(f"{count} {modality}" for modality, count in used.items())
        lines.append(f"{clips.listed} training clips listed{_gaps(clips)}; rows trained on: {rows}")
    if best is not None:
        recall = "  ".join(f"{name} {value:.1f}" for name, value in best["R@1"].items())
        lines.append(f"best validation R@1 at step {best['step']}: {recall}")
    if stop.requested:
        lines.append(f"stopped after step {done} of {steps}; go on with: mover train --config {folder.config} --resume")
    else:
        left = ", ".join(path.name for path in (folder.log, folder.curves, folder.plan, folder.plans))
        lines.append(f"done: {folder.best}, {left}")
        lines.append(f"next: mover evaluate --checkpoint {folder.best}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
