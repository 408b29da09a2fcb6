"""Memory, traffic and time of a training step on N GPUs with a global batch of B clips.

The towers are roberta-base, ViT-B/16 and BEATs, under bfloat16 autocast; all of them learn. Every process encodes B / N
clips, gathers the embeddings of all and computes the objective of the whole batch. Bytes and operations are counted;
what they rest on is measured: activations by autograd itself (docs/results/steps-cpu.json), the objective's memory on a
CPU (docs/results/scaling.json), rates of a GPU on one H100 (docs/results/*-cuda.json). Nothing here was run on
several GPUs.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import training_steps as steps

WIDTH, MODALITIES, PAIRS = 512, 3, 3  # of the shared space; text, video, audio
ITERATIONS = 10  # of Sinkhorn at epsilon 0.1: an L1 error of 1e-3 from B = 2048 on, less beyond
GPUS_OF_A_MACHINE = 8
COSINE = 0.2**0.5  # of partners x and normalise(x / 2 + n), n of norm 1
OBJECTIVE = "mover, topk"  # of docs/results/scaling.json


@dataclass(frozen=True)
class Hardware:
    """GPUs in machines of eight, and what connects them."""

    memory: float = 0.9 * 80e9  # bytes for tensors: a tenth for the CUDA context, NCCL and fragments
    flops: float = 989e12  # bfloat16, dense, of the data sheet of an H100
    utilisation: float = 0.4  # of it by the towers
    nvlink: float = 450e9  # bytes/s, each way, of a GPU
    network: float = 50e9  # bytes/s, each way, of a machine: 400 Gb/s
    latency: float = 10e-6  # seconds for each doubling of the processes

    def ring(self, gpus: int) -> float:
        """Bytes/s around a ring of all GPUs: that of its slowest link."""
        return self.nvlink if gpus <= GPUS_OF_A_MACHINE else min(self.nvlink, self.network)

    def all_reduce(self, size: float, gpus: int) -> float:
        """Seconds: a ring passes every byte on twice."""
        return 2 * self.all_gather(size, gpus)

    def all_gather(self, size: float, gpus: int) -> float:
        """Seconds, `size` bytes in all; as long for a reduce-scatter."""
        return size * (gpus - 1) / gpus / self.ring(gpus) + self.latency * math.log2(gpus)


@dataclass(frozen=True)
class Records:
    """What was measured."""

    steps: dict  # rows of docs/results/steps-cpu.json
    matrices: float  # the objective's peak: so many float32 matrices of B x B,
    per_clip: float  # and so many bytes a clip
    solve: float  # seconds for each B^2: three pairs, ITERATIONS of them, without the costs
    rest: float  # the objective otherwise, forward and backward: costs and contrasts


@dataclass(frozen=True)
class Run:
    """A run: so many GPUs and clips a step. micro_batch: clips that a GPU encodes at once; again: checkpointing."""

    gpus: int
    batch: int
    frames: int = 8
    again: bool = True
    micro_batch: int = 64

    @property
    def clips(self) -> int:
        """Of one GPU."""
        return max(1, self.batch // self.gpus)

    @property
    def passes(self) -> int:
        return math.ceil(self.clips / self.micro_batch)


# ---- memory, bytes of one GPU ----------------------------------------------------------------------------------------


def parameters(records: Records) -> int:
    return _all(records)["parameters"]


def states(records: Records, run: Run, parallel: str) -> float:
    """Weights, gradients, which are the buckets of DDP, two moments, and the copies of weights in bfloat16.

    FSDP2 has a share of each, and whole: the largest unit twice, and with micro-batches the gradients, which are
    added up before they are exchanged.
    """
    count = parameters(records)
    if parallel == "ddp":
        return (4 + 4 + 8 + 2) * count
    largest = 50265 * 768 * 4
    gradients = 4 * count if run.passes > 1 else 0
    return (4 + 4 + 8) * count / run.gpus + 2 * largest + gradients


def inputs(run: Run) -> float:
    """Frames as bytes, waveforms in float32, tokens."""
    return run.clips * (run.frames * 3 * 224 * 224 + 16000 * steps.SECONDS * 4 + 2 * 8 * steps.TOKENS["text"])


def activations(records: Records, run: Run) -> float:
    """What the towers keep for the backward pass, of the clips that are encoded at once."""
    return min(run.clips, run.micro_batch) * steps.per_clip(_all(records), run.frames, run.again, "bfloat16")


def embeddings(run: Run) -> float:
    """Gathered rows and their gradients, float32."""
    return 2 * MODALITIES * WIDTH * 4 * run.batch


def objective(records: Records, run: Run) -> float:
    return records.matrices * 4 * run.batch**2 + records.per_clip * run.batch


def peak(records: Records, run: Run, parallel: str) -> float:
    """With micro-batches the objective is done before the towers keep anything."""
    towers, loss = activations(records, run), objective(records, run)
    both = max(towers, loss) if run.passes > 1 else towers + loss
    return states(records, run, parallel) + inputs(run) + embeddings(run) + both


# ---- traffic and time ------------------------------------------------------------------------------------------------


def forward_flops(frames: int) -> float:
    """Operations of one clip through the towers: projections 24 w^2 a token and layer, attention 4 T w."""
    width, tokens = steps.WIDTH, steps.TOKENS
    sequences = [tokens["text"], tokens["audio"], *[tokens["video"]] * frames]
    return sum(steps.LAYERS * (24 * width**2 * length + 4 * length**2 * width) for length in sequences)


def towers_seconds(hardware: Hardware, run: Run) -> float:
    """Forward and backward are three forwards; checkpointing is one more, and so are micro-batches."""
    forwards = 3 + run.again + (run.passes > 1)
    return run.clips * forwards * forward_flops(run.frames) / (hardware.flops * hardware.utilisation)


def exchange_seconds(hardware: Hardware, records: Records, run: Run, parallel: str) -> float:
    """Gradients, and with FSDP2 the weights before every pass; float32, nothing overlapped."""
    size = 4 * parameters(records)
    if parallel == "ddp":
        return hardware.all_reduce(size, run.gpus)
    gathers = 2 * run.passes + (run.passes if run.passes > 1 else 0)
    return (gathers + 1) * hardware.all_gather(size, run.gpus)


def gather_seconds(hardware: Hardware, run: Run) -> float:
    """The embeddings of all clips."""
    return hardware.all_gather(MODALITIES * WIDTH * 4 * run.batch, run.gpus)


def solve_seconds(hardware: Hardware, records: Records, run: Run, sharded: bool) -> float:
    """Sinkhorn of three pairs. Sharded, with one all-reduce an iteration and one of the potentials."""
    whole = records.solve * run.batch**2
    if not sharded:
        return whole
    exchanged = (ITERATIONS + 1) * hardware.all_reduce(4 * PAIRS * (run.batch + 1), run.gpus)
    return whole / run.gpus + exchanged + hardware.all_reduce(8 * PAIRS * 2 * run.batch, run.gpus)


def rest_seconds(records: Records, run: Run) -> float:
    return records.rest * run.batch**2


def partner_share(epsilon: float, batch: int) -> float:
    """The share of a row's mass that a plan gives to its partner, whose cosine is COSINE, among others that are random:
    a softmax of 2 cos / epsilon over cosines that are normal, of deviation 1 / sqrt(WIDTH)."""
    partner, deviation = 2 * COSINE / epsilon, 2 / epsilon / WIDTH**0.5
    return 1 / (1 + batch * math.exp(deviation**2 / 2 - partner))


def _all(records: Records) -> dict:
    return next(row for row in records.steps if row.get("count") == "all")


def peak_by(small: dict, large: dict) -> tuple[float, float]:
    """Matrices and bytes a clip, of which the peaks of an objective at two batches consist."""
    a, b = small["batch"], large["batch"]
    by_clip = {n: row["peak"] * 2**20 / n for n, row in ((a, small), (b, large))}
    matrices = (by_clip[b] - by_clip[a]) / (4 * (b - a))
    return matrices, by_clip[a] - 4 * a * matrices


def records_of(counts: list[dict], checks: list[dict], transport: dict, contrast: dict) -> Records:
    """From the rows of benchmarks: of the steps, of scripts/scaling --measure, and of the largest sizes on a GPU."""
    small, large = sorted((row for row in checks if row["objective"] == OBJECTIVE), key=lambda row: row["batch"])[-2:]
    matrices, per_clip = peak_by(small, large)
    time = lambda row, name, what: row["contenders"][name][what]["ms"] / 1e3 / row["rows"] ** 2  # noqa: E731
    both = "forward + backward"
    products = time(transport, "products, float32", both)  # of three pairs
    cross_entropy = time(contrast, "mover", both) - time(contrast, "volume_scores", both)
    return Records(
        steps=counts,
        matrices=matrices,
        per_clip=per_clip,
        solve=time(transport, "mover", "forward") - time(transport, "products, float32", "forward"),
        rest=products + time(contrast, "mover", both) + products + PAIRS * cross_entropy,
    )
