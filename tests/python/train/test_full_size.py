"""One step of training with encoders of the full size: roberta-base, ViT-B/16 and BEATs, random weights, batch 2.

It takes about 30 s of CPU time and 6.4 GB, of which 4.8 GB are the weights, their gradients and AdamW's moments.
"""

from __future__ import annotations

import pytest
import torch

from cases.machine import available_bytes
from mover.config import Config, DataConfig, OptimizerConfig
from mover.losses import build_objective
from mover.models.model import MoverModel
from mover.train.optimizer import build_optimizer
from mover.train.step import Learner

ROBERTA_BASE, VIT_BASE, BEATS_ITER3, HEADS = 124_055_040, 85_798_656, 90_311_792, 3 * 768 * 512


@pytest.mark.slow
@pytest.mark.skipif(available_bytes() < 8 << 30, reason="needs 8 GiB of available memory")
def test_one_step_of_the_full_size_changes_every_parameter() -> None:
    config = Config(data=DataConfig(frames=1, audio_seconds=1.0), optimizer=OptimizerConfig(tower_lr=1e-5))
    torch.manual_seed(0)
    model = MoverModel(config.model, config.data, config.modalities, vocab_size=50265)
    sizes = {name: sum(p.numel() for p in tower.parameters()) for name, tower in model.towers.items()}
    # the text tower has one position per token of data.max_tokens, those of its padding id included
    assert sizes == {
        "text": ROBERTA_BASE - (514 - 42) * 768, "video": VIT_BASE, "audio": BEATS_ITER3
    }  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == sum(sizes.values()) + HEADS

    objective = build_objective(config.objective, config.modalities)
    optimizer = build_optimizer(config.optimizer, model.parameter_groups(config.optimizer), objective)
    ids = torch.randint(5, 50265, (2, 12))
    batch = {
        "text": {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        "video": {"pixels": torch.randint(0, 256, (2, 1, 3, 224, 224), dtype=torch.uint8)},
        "audio": {"waveform": 0.1 * torch.randn(2, 16000), "length": torch.tensor([16000, 9000])},
        "present": {name: torch.ones(2, dtype=torch.bool) for name in config.modalities},
        "owner": {name: torch.arange(2) for name in config.modalities},
        "aligned": 2,
        "together": (),
    }
    before = {name: p.detach().flatten()[:1000].clone() for name, p in model.named_parameters()}
    step = Learner(model, model, objective, optimizer, config, torch.device("cpu")).step(batch, config.train.steps)
    assert set(step.terms) == {"mover", "volume_contrastive", "pairwise", "total"}
    assert step.fault is None and 0 < step.norm < float("inf")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
        if parameter.ndim > 1 and "position_embeddings" not in name:
            assert not torch.equal(parameter.detach().flatten()[:1000], before[name]), name
