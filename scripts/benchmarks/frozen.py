"""Training steps over frozen towers: the towers in every step, or their outputs from the feature cache.

A step of 8 clips, towers frozen, the whole objective and its gradient, AdamW on heads and layers over time. With the
towers it decodes, samples and encodes; from the cache it reads what the towers gave. Filling the cache decodes and
encodes every clip and caption once. "tiny" is the demo configuration; "full size" has the sizes of roberta-base,
ViT-B/16 and BEATs iter3, random weights, 8 frames of 224 x 224 and windows of 10 s. Clips are those of the embedded
data set. CPU time of the process, the first step aside.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from tables import digits, figures
from tables import table as markdown

from mover.configs import load_config
from mover.data.dataset import ClipDataset
from mover.data.loader import make_loader
from mover.data.manifest import read_manifest, select_split
from mover.data.synthetic import generate
from mover.data.tokenizer import Tokenizer
from mover.losses import build_objective
from mover.models.model import MoverModel
from mover.train.frozen import serve_frozen_towers
from mover.train.optimizer import build_optimizer
from mover.train.step import Learner

BATCH, CLIPS = 8, 16
MODELS = {"tiny": "demo", "full size": "default"}
STEPS = {"tiny": (20, 50), "full size": (2, 50)}
QUICK = ("tiny",)
CPU = torch.device("cpu")


def run(quick: bool) -> list[dict]:
    """One row for each model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = generate(folder / "data", train=CLIPS, validation=4, test=4, workers=1, progress=False)
        return [_measured(model, manifest, folder / model) for model in (QUICK if quick else MODELS)]


def table(rows: list[dict]) -> str:
    header = ["", "with towers, s a step", "from the cache, s a step", "ratio", "filling, s a clip"]
    lines = [
        [
            row["model"],
            figures(row["live"]),
            figures(row["cached"]),
            digits(row["live"] / row["cached"]),
            figures(row["fill"]),
        ]
        for row in rows
    ]
    return markdown(header, lines)


def _measured(name: str, manifest: Path, folder: Path) -> dict:
    towers = {f"model.{modality}.trained_layers": 0 for modality in ("text", "video", "audio")}
    settings = {
        **towers, "data.manifest": str(manifest), "data.cache": "features", "data.cache_folder": str(folder),
        "data.workers": 0, "train.batch_size": BATCH, "objective.mover_start": 0, "objective.mover_warmup": 0,
    }  # fmt: skip
    config = load_config(MODELS[name], settings)
    clips = select_split(read_manifest(manifest), "train")
    tokenizer = Tokenizer.for_data(config.data)
    torch.manual_seed(0)
    model = MoverModel(config.model, config.data, config.modalities, tokenizer.vocab_size)
    objective = build_objective(config.objective, config.modalities)
    optimizer = build_optimizer(config.optimizer, model.parameter_groups(config.optimizer), objective)

    def seconds_a_step(dataset: ClipDataset, count: int) -> float:
        began = 0.0
        for step, batch in enumerate(make_loader(dataset, BATCH, steps=count + 1)):
            if step == 1:
                began = time.process_time()
            Learner(model, model, objective, optimizer, config, CPU).step(batch, step)
        return (time.process_time() - began) / count

    def dataset() -> ClipDataset:
        return ClipDataset(clips, config.data, config.modalities, tokenizer, training=True, progress=False)

    live, cached = STEPS[name]
    row = {"model": name, "live": seconds_a_step(dataset(), live)}
    served, began = dataset(), time.process_time()
    serve_frozen_towers(model, config, [served], tokenizer, CPU, progress=False, say=lambda line: None)
    row["fill"] = (time.process_time() - began) / len(clips)
    row["cached"] = seconds_a_step(served, cached)
    return row
