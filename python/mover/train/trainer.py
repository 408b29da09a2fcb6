"""Training, from a configuration to a run folder. `train` is the whole story, top to bottom.

As a command: `mover train --config demo`, and after a stop `mover train --config runs/demo/config.yaml --resume`.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack, nullcontext
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
from mover.data.sampling import DROPOUT, generator
from mover.distributed.replicas import check_equal, replicate
from mover.distributed.shards import Shards
from mover.distributed.world import World, restarted
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
    OPTIMIZER,
    has_checkpoint,
    load_checkpoint_model,
    load_state,
    load_weights,
)
from mover.train.checks import check_run
from mover.train.collapse import CollapseWatch
from mover.train.device import (
    keep_freed_memory,
    peak_memory,
    pick_device,
    random_state,
    restore_random_state,
    usable_cores,
)
from mover.train.frozen import serve_frozen_towers
from mover.train.interrupt import StopRequest
from mover.train.logging import Display, RunLog, read_log
from mover.train.optimizer import build_optimizer, learning_rates, schedule, set_learning_rate
from mover.train.run_folder import RunFolder
from mover.train.start import starting_model
from mover.train.step import Learner

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
    """Train as `config` says, on all processes that torchrun started, and leave the results in `config.folder`.

    Args:
        config: the run.
        resume: go on from checkpoints/last; on a CPU the losses are those of the run that was never stopped.
        overwrite: replace the run that is in the folder.
        console: where progress goes; default: standard output.

    Raises:
        UserError: bad data, a folder in use, a checkpoint that does not fit, losses that are not finite.
    """
    world = World.announced()
    if not world.leads:
        console = Console(quiet=True, force_terminal=False)
    if restarted():  # the folder is that of this run, whatever was asked for at first
        resume = has_checkpoint(RunFolder(config.folder).last)
        overwrite = not resume
    connection = pick_device(config.train.device, world) if world.several else torch.device("cpu")
    with world.connected(connection) as joined, ExitStack() as held:
        return _train(config, resume, overwrite, console or Console(), joined, held)


def _train(config: Config, resume: bool, overwrite: bool, console: Console, world: World, held: ExitStack) -> Outcome:
    steps, batch_size = config.train.steps, config.train.batch_size

    # Folder, machine and data; nothing is written before everything has been checked.
    with world.agreed():
        ready = check_run(config, resume=resume, overwrite=overwrite, progress=console.is_terminal, world=world)
    folder, checkpoint, device, tokenizer = ready.folder, ready.checkpoint, ready.device, ready.tokenizer
    train_set, validation = ready.train_set, ready.validation
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    for warning in ready.warnings:
        say(warning)
    with world.agreed():
        if world.leads:
            held.enter_context(folder.hold(config, resume=resume, overwrite=overwrite, say=say))
    threads = config.train.threads or (max(1, usable_cores() // world.local_size) if world.several else 0)
    if threads:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(config.seed)

    # Model, objective, optimiser
    vocab_size = None if tokenizer is None else tokenizer.vocab_size
    if checkpoint is None:
        model = starting_model(config, vocab_size).to(device)
    else:
        model = load_checkpoint_model(checkpoint, config, config.data, vocab_size).to(device)
    pool = len(train_set), config.model.embed_dim
    objective = build_objective(config.objective, config.modalities, pool).to(device)
    replica = replicate(model, world, config.train.parallel, device)
    optimizer = build_optimizer(config.optimizer, model.parameter_groups(config.optimizer), objective)
    if not world.leads:  # equal weights, but masks of dropout of its own
        torch.manual_seed(int(generator(config.seed, DROPOUT, world.rank).integers(2**62)))
    shards = Shards(model, objective, optimizer) if world.several and config.train.parallel == "fsdp" else None
    start, best, skipped = 0, None, 0
    used, logged = Counter[str](), Counter[str]()
    if checkpoint is not None:
        state = load_state(checkpoint)
        load_weights(objective, checkpoint / OBJECTIVE)
        _load_optimizer(optimizer, shards, state, checkpoint)
        start, best, skipped = state["step"], state["best"], state["skipped"]
        used.update(state.get("used", {}))
        logged.update(state.get("logged", {}))
        if world.rank < len(state["random"]):
            restore_random_state(state["random"][world.rank], device)
        if start > steps:
            raise UserError(f"{checkpoint} is at step {start}, beyond train.steps = {steps}: give more steps.")
    every = [train_set, *([] if validation is None else validation.datasets.values())]
    on_disk = config.data.cache in ("disk", "features")  # filled by one process, read by all
    with world.agreed(), world.in_turn() if on_disk else nullcontext():
        if validation is not None:
            validation.prepare()
        loader = make_loader(train_set, batch_size, start_step=start, steps=steps, world=world)
        serve_frozen_towers(model, config, every, tokenizer, device, progress=console.is_terminal, say=say)
    together = loader.batches.together
    if world.leads:
        folder.open(config, anew=checkpoint is None, keep_until=start)
    _announce(console, config, folder, model, train_set, validation, device, world, start)

    # The loop
    facts = {"device": str(device), "training_clips": len(train_set), "parameters": _parameters(model)}
    facts |= {"processes": world.size} if world.several else {}
    learner = Learner(model, replica, objective, optimizer, config, device, world)
    done, spent, embeddings, stopping = start, _Stopwatch(), None, False
    watch = CollapseWatch(config, objective)
    with (
        StopRequest() as stop,
        RunLog(folder.log if world.leads else None, keep_until=start) as log,
        Display(console, steps, start, config.train.log_every) as display,
    ):
        if start < steps:
            log.write("run", start, **built_from(), **facts, peak_mib=round(peak_memory(device), 1))
        watch.replay(log.before)
        for batch in loader:
            set_learning_rate(optimizer, schedule(done, steps, config.optimizer))
            step = learner.step(batch, done, stop.requested)
            done += 1
            used.update(step.rows)
            spent.step()
            skipped = 0 if step.fault is None else skipped + 1
            if step.fault is not None:
                message = _of_a_fault(step.fault, done, skipped, config)
                if skipped > config.train.skip_limit:
                    raise UserError(message)
                log.write("warning", done, symptom="skipped", message=message)
                display.say(message)
            display.step(done, step.terms["total"], spent.per_step * (steps - done))

            last = done == steps
            if step.fault is None and (last or done % config.train.log_every == 0):
                log.write(
                    "train", done, loss=step.terms["total"], terms=step.terms, lr=learning_rates(optimizer),
                    temperatures=_temperatures(objective), grad_norm=step.norm,
                    samples_per_second=round(batch_size * spent.rate(), 2), peak_mib=round(peak_memory(device), 1),
                    rows={m: used[m] - logged[m] for m in config.modalities},
                )  # fmt: skip
                logged.update(used - logged)

            if step.diagnostics is not None:
                found = {**step.diagnostics, "temperatures": _temperatures(objective)}
                log.write("diagnostics", done, **found)
                for alarm in watch.observe({"step": done, **found}):
                    log.write("warning", done, symptom=alarm.symptom, message=alarm.message)
                    display.say(alarm.message)

            improved = False
            if validation is not None and (last or done % config.train.validate_every == 0):
                with world.agreed():
                    embeddings = _embed(model, validation, config, device, world)
                    metrics = _validate(embeddings, config, device)
                recall = {name: row["R@1"] for name, row in metrics.items()}
                counts = {name: int(row["clips"]) for name, row in metrics.items()}
                score = float(np.mean(list(recall.values())))
                improved = best is None or score >= best["score"]  # of equals the later
                if improved:
                    best = {"step": done, "score": score, "R@1": recall}
                log.write("validation", done, **{"R@1": recall}, clips=counts, mean=round(score, 4))
                display.validation(done, recall, counts, improved)
                plans = _plans(objective, embeddings, min(batch_size, PLAN_CLIPS), device, together)
                if world.leads:
                    folder.write_plans(done, plans)
                spent.skip()

            stopping = step.stop if world.several else stop.requested
            if last or improved or stopping or done % config.train.checkpoint_every == 0:
                check_equal(model, world, done)
                state = {
                    "step": done, "best": best, "skipped": skipped, "used": dict(used), "logged": dict(logged),
                    "optimizer": optimizer.state_dict() if shards is None else None,
                    "random": world.collect(random_state(device)),
                }  # fmt: skip
                with nullcontext() if shards is not None else world.agreed():
                    folder.save(
                        model=model, objective=objective, state=state, config=config, tokenizer=tokenizer,
                        best=improved or (validation is None and last), world=world, shards=shards,
                    )  # fmt: skip
                spent.skip()
            if stopping:
                break

    # Pictures
    if embeddings is None and validation is not None and not stopping:  # resumed at its last step
        embeddings = _embed(model, validation, config, device, world)
    plans = {} if embeddings is None else _plans(objective, embeddings, batch_size, device, together)
    if world.leads:
        draw_curves(read_log(folder.log), folder.curves, f"{config.name}: {done} of {steps} steps")
        if plans and not stopping:
            draw_plans(plans, folder.plan, f"{config.name}: transport plans of a validation batch, step {done}")
    _conclude(console, folder, done, steps, best, stopping, train_set, used)
    world.wait()
    signum = None if not stopping else stop.signum or signal.SIGTERM
    return Outcome(folder.path, done, best, signum)


def _load_optimizer(
    optimizer: torch.optim.Optimizer, shards: Shards | None, state: dict[str, Any], checkpoint: Path
) -> None:
    if shards is not None:
        shards.load_optimizer(checkpoint / OPTIMIZER)
    elif state["optimizer"] is None:
        raise UserError(
            f"{checkpoint} is of a run in shards: resume it on several processes with train.parallel fsdp, or begin "
            "with its weights (train.start_from)."
        )
    else:
        optimizer.load_state_dict(state["optimizer"])


def _of_a_fault(fault: str, done: int, skipped: int, config: Config) -> str:
    """What is said of a step that was not taken."""
    limit = config.train.skip_limit
    if skipped <= limit:
        return (
            f"Step {done}: {fault}; the step was left out ({skipped} in a row; training stops after more than {limit}, "
            "train.skip_limit)."
        )
    last = RunFolder(config.folder).last
    kept = f" The last checkpoint is {last}." if last.exists() else " There is no checkpoint yet."
    row = "" if skipped == 1 else f", as were the {skipped - 1} before it,"
    return (
        f"Step {done}: {fault}; the step was left out{row} and training stopped.{kept} "
        "Try a lower optimizer.lr, a longer optimizer.warmup_fraction or train.precision float32."
    )


def _embed(
    model: MoverModel, validation: EvaluationSet, config: Config, device: torch.device, world: World
) -> Embeddings:
    """The embeddings of all validation clips, of which each process computes its share; shards all compute all."""
    share = world if config.train.parallel == "ddp" else World()
    size, precision = config.evaluate.batch_size, config.train.precision
    listed = embed(model, validation, batch_size=size, device=device, precision=precision, world=share)
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
    world: World,
    start: int,
) -> None:
    count = 0 if validation is None else len(validation.clips)
    millions, learning = (n / 1e6 for n in _parameters(model).values())
    text = (
        f"{folder.path}: {len(train_set)} training{_gaps(train_set)} and {count} validation clips, "
        f"{', '.join(config.modalities)}, {millions:.2f} M parameters"
        f"{'' if learning == millions else f', {learning:.2f} M of them learn'}, {device}, {config.train.precision}"
    )
    if world.several:
        text += f", {world.size} processes ({config.train.parallel})"
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
    stopped: bool,
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
    if stopped:
        lines.append(f"stopped after step {done} of {steps}; go on with: mover train --config {folder.config} --resume")
    else:
        left = ", ".join(path.name for path in (folder.log, folder.curves, folder.plan, folder.plans))
        lines.append(f"done: {folder.best}, {left}")
        lines.append(f"next: mover evaluate --checkpoint {folder.best}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
