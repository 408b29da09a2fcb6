"""Seconds and memory of a training step with encoders of the full size.

roberta-base, ViT-B/16 and BEATs with random weights, float32. Clips have a caption of 40 tokens, frames of 224 x 224
and 10 s of sound. "learns": what of every tower does. "again": layers keep their inputs only and are computed again in
the backward pass (gradient checkpointing). Each row is a process of its own, on one thread, with the gradients and
moments of a step before. "CPU s" is the time the process itself ran, the number to compare on a machine that does other
things too. "peak" is resident memory at its highest, above what the process took before the model was made;
"computed" is

    4 bytes a parameter + 12 bytes a parameter that learns (gradient, two moments of AdamW)
    + what the towers keep for the backward pass, of every clip.

What they keep is counted in the second table, by autograd itself, for each share of layers that learns. With gradient
checkpointing a layer keeps its input, tokens x width, and one layer at a time, that of the tower that keeps most, has
all of it and gradients of the same size. The numbers of bfloat16 are those of GPUs: fused attention, and no copies of
weights counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tables import table as markdown

LEARNS = {"heads": 0, "last 4 layers": 4, "all": None}
LAYERS, WIDTH = 12, 768
TOKENS = {"text": 40, "video": 197, "audio": 496}  # of a caption, of a frame, of 10 s
SETTINGS = (
    (2, 4, "heads", False),
    (2, 4, "last 4 layers", False),
    (2, 4, "all", True),
    (2, 8, "all", True),
    (4, 4, "all", True),
    (2, 4, "all", False),
)
QUICK = ((2, 1, "heads", False), (2, 1, "all", True))
SECONDS = 10.0
GPUS = (24, 40, 80)  # GiB


def run(quick: bool) -> list[dict]:
    """What the towers keep, for each share of trained layers; then one row for each setting."""
    rows = [{"count": learns, **in_a_process({"count": learns})} for learns in LEARNS]
    for batch, frames, learns, again in QUICK if quick else SETTINGS:
        setting = {"batch": batch, "frames": frames, "learns": learns, "again": again}
        row = {**setting, **in_a_process(setting)}
        rows.append(row)
        print(f"steps {setting}: {row['CPU s']:.1f} s, {row['peak']:.0f} MiB", flush=True)
    return rows


def computed(rows: list[dict], row: dict, precision: str = "float32") -> float:
    """MiB that the formula above gives for a row."""
    kept = next(r for r in rows if r.get("count") == row["learns"])
    fixed = 4 * kept["parameters"] + 12 * kept["learning"]
    return (fixed + row["batch"] * per_clip(kept, row["frames"], row["again"], precision)) / 2**20


def per_clip(kept: dict, frames: int, again: bool, precision: str) -> float:
    """Bytes that the towers keep of one clip."""
    share = {tower: number * (frames if tower == "video" else 1) for tower, number in kept[precision].items()}
    layers = LEARNS[kept["count"]]
    layers = LAYERS if layers is None else layers
    if not again or layers == 0:
        return sum(share.values())
    size = 4 if precision == "float32" else 2
    inputs = sum(TOKENS[tower] * (frames if tower == "video" else 1) for tower in TOKENS) * layers * WIDTH * size
    return inputs + 2 * max(share.values()) / layers


def table(rows: list[dict]) -> str:
    """Three tables: steps, what is kept, and the largest batch that the formula leaves room for on a GPU."""
    counts = [row for row in rows if "count" in row]
    steps = [
        [
            str(row["batch"]), str(row["frames"]), row["learns"], "again" if row["again"] else "",
            f"{row['CPU s']:.1f}", f"{row['peak'] / 1024:.2f}", f"{computed(rows, row) / 1024:.2f}",
        ]
        for row in rows if "batch" in row
    ]  # fmt: skip
    kept = [
        [row["count"], precision, *(f"{row[precision][tower] / 2**20:.1f}" for tower in TOKENS)]
        for row in counts for precision in ("float32", "bfloat16")
    ]  # fmt: skip
    fits = []
    for frames in (4, 8, 16):
        for row in counts:
            for again in (False, True) if LEARNS[row["count"]] != 0 else ():
                need = per_clip(row, frames, again, "bfloat16")
                fixed = 4 * row["parameters"] + 16 * row["learning"]
                most = [f"{max(0, int((0.9 * gpu * 2**30 - fixed) / need)):,}" for gpu in GPUS]
                fits.append([str(frames), row["count"], "again" if again else "", f"{need / 2**20:.0f}", *most])
    return "\n\n".join(
        [
            markdown(["clips", "frames", "learns", "", "CPU s", "peak, GiB", "computed, GiB"], steps),
            "What is kept for the backward pass, MiB:",
            markdown(["learns", "precision", "caption", "frame", "10 s of sound"], kept),
            "Computed for GPUs, towers under bfloat16: MiB a clip, and how many clips fit into nine tenths of the "
            "memory, of which AdamW takes 4 more bytes a parameter that learns. Not measured on a GPU.",
            markdown(["frames", "learns", "", "MiB a clip", *(f"{gpu} GiB" for gpu in GPUS)], fits),
        ]
    )


def measured(setting: dict) -> dict:
    """What a setting takes, or what a share of layers keeps, in this process."""
    return count(setting["count"]) if "count" in setting else step(**setting)


def in_a_process(setting: dict) -> dict:
    """`measured`, in a process of its own with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(setting)], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"a step of {setting} failed: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _model(learns: str, again: bool, frames: int):
    from mover.config import AudioTowerConfig, Config, DataConfig, ModelConfig, TextTowerConfig, VideoTowerConfig
    from mover.models.model import MoverModel

    tower = {"trained_layers": LEARNS[learns], "gradient_checkpointing": again}
    towers = ModelConfig(
        text=TextTowerConfig(**tower), video=VideoTowerConfig(**tower), audio=AudioTowerConfig(**tower)
    )
    config = Config(model=towers, data=DataConfig(frames=frames, audio_seconds=SECONDS))
    return config, MoverModel(config.model, config.data, config.modalities, vocab_size=50265)


def _batch(clips: int, frames: int, seconds: float, tokens: int) -> dict:
    import torch

    samples = round(16000 * seconds)
    ids = torch.randint(5, 50265, (clips, tokens))
    return {
        "text": {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        "video": {"pixels": torch.randint(0, 256, (clips, frames, 3, 224, 224), dtype=torch.uint8)},
        "audio": {"waveform": 0.1 * torch.randn(clips, samples), "length": torch.full((clips,), samples)},
        "present": {name: torch.ones(clips, dtype=torch.bool) for name in TOKENS},
        "owner": dict.fromkeys(TOKENS, torch.arange(clips)),
        "aligned": clips,
        "together": (),
    }


def count(learns: str) -> dict:
    """Parameters, and the bytes that each tower keeps of a caption, a frame and 10 s of sound, by precision.

    In float32 with the attention that a CPU takes, in bfloat16 with that of a GPU.
    """
    _, model = _model(learns, False, 1)
    model.train()
    result: dict = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "learning": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    for precision in ("float32", "bfloat16"):
        if precision == "bfloat16":
            for layer in model.towers["audio"].beats.encoder.layers:
                layer.self_attn.attention = "sdpa"
        result[precision] = {
            tower: _kept(model, tower, 2, precision) - _kept(model, tower, 1, precision) for tower in TOKENS
        }
    return result


def _kept(model, tower: str, clips: int, precision: str) -> int:
    """Bytes of all that autograd keeps of so many clips, parameters aside."""
    import torch

    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    inputs = _batch(clips, 1, SECONDS, TOKENS["text"])[tower]
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        model.encode(tower, inputs)
    return sum(kept.values())


def step(batch: int, frames: int, learns: str, again: bool, micro_batch: int = 0) -> dict:
    """Seconds and MiB of one step, and its loss and the norm of its gradient."""
    import torch

    from mover.losses import build_objective
    from mover.train.optimizer import build_optimizer
    from mover.train.step import Learner

    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = _status("VmRSS")
    config, model = _model(learns, again, frames)
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"batch_size": batch, "micro_batch": micro_batch})}
    )
    objective = build_objective(config.objective, config.modalities)
    optimizer = build_optimizer(config.optimizer, model.parameter_groups(config.optimizer), objective)
    cpu = torch.device("cpu")
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    inputs = _batch(batch, frames, SECONDS, TOKENS["text"])
    Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter(), time.process_time()
    found = Learner(model, model, objective, optimizer, config, cpu).step(inputs, 5000)
    took = time.perf_counter() - began[0], time.process_time() - began[1]
    peak = (_status("VmHWM") - before) / 1024
    return {"s": took[0], "CPU s": took[1], "peak": peak, "loss": found.terms["total"], "norm": found.norm}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    print(json.dumps(measured(json.loads(sys.argv[1]))))
