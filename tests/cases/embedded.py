"""What `mover embed` is measured against, and what may stop it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mover.configs import load_config
from mover.data.manifest import read_manifest, select_split
from mover.evaluate.embed import EvaluationSet, embed
from mover.evaluate.embed_checkpoint import embed_to_file
from mover.evaluate.embed_parts import Parts
from mover.evaluate.embeddings import Embeddings
from mover.train.checkpoint import CONFIG, load_checkpoint_model, load_checkpoint_tokenizer

CPU = torch.device("cpu")


def in_memory(checkpoint: Path, missing: str = "fail", manifest: Path | None = None, batch_size: int = 5) -> Embeddings:
    """What `embed` gives for the same clips."""
    config = load_config(checkpoint / CONFIG)
    data = config.data if manifest is None else config.data.model_copy(update={"manifest": manifest})
    tokenizer = load_checkpoint_tokenizer(checkpoint, config)
    vocab_size = None if tokenizer is None else tokenizer.vocab_size
    model = load_checkpoint_model(checkpoint, config, data, vocab_size)
    listed = select_split(read_manifest(data.manifest), "test")
    given = EvaluationSet(
        listed, data, config.modalities, tokenizer, missing=missing, others=config.model.others
    )  # fmt: skip
    return embed(model, given, batch_size=batch_size, device=CPU, precision=config.train.precision)


def same(one: Embeddings, other: Embeddings) -> bool:
    assert one.ids == other.ids and one.labels == other.labels
    assert np.array_equal(one.text_owner, other.text_owner)
    assert one.modalities == other.modalities
    for m in one.modalities:
        assert np.array_equal(one.vectors[m], other.vectors[m]) and np.array_equal(one.present[m], other.present[m])
    return True


def interrupted(checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch, after: int = 3, **options: Any) -> None:
    """Leave parts behind: an error in `put` after so many batches."""
    real, count = Parts.put, 0

    def fail(parts: Parts, modality: str, piece: Any) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise RuntimeError("power failure")
        real(parts, modality, piece)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "put", fail)
        with pytest.raises(RuntimeError, match="power failure"):
            embed_to_file(checkpoint, out, batch_size=5, **options)


def killed(act: Callable[[], object], at: int, calls: tuple[str, ...]) -> bool:
    """Run `act` in a process of its own and kill it before call number `at` of these functions of `os`; whether it was.

    A kill with -9: nothing of the process runs any more.
    """
    child = os.fork()
    if child == 0:
        count = 0
        for name in calls:
            real = getattr(os, name)

            def hooked(*args: Any, real: Any = real, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count > at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            setattr(os, name, hooked)
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
