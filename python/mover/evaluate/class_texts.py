"""Names of classes in a sentence, embedded by the text tower of a checkpoint: classes without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mover.errors import UserError

PLACE = "{}"


def embed_class_names(
    checkpoint: Path, names: Sequence[str], prompts: Sequence[str], device: str = "auto"
) -> dict[str, np.ndarray]:
    """Class to the mean of the unit rows, float64 (d,), of its name in each prompt.

    prompts: sentences with {} where the name goes, as "a video of a {}". Names are written as they are, `_` as a space.
    Raises UserError for a prompt without {}, and for a checkpoint without text.
    """
    import torch

    from mover.evaluate.embed import inference
    from mover.train.checkpoint import (
        find_checkpoint,
        load_checkpoint_config,
        load_checkpoint_model,
        load_checkpoint_tokenizer,
    )
    from mover.train.device import pick_device, to_device

    for prompt in prompts:
        if PLACE not in prompt:
            raise UserError(f"The prompt '{prompt}' has no {PLACE}, where the name of the class goes.")
    folder = find_checkpoint(checkpoint)
    config = load_checkpoint_config(folder)
    tokenizer = load_checkpoint_tokenizer(folder, config)
    if tokenizer is None:
        raise UserError(f"{folder} has no text, so that names of classes cannot be embedded: leave --prompt out.")
    where = pick_device(device)
    model = load_checkpoint_model(folder, config, config.data, tokenizer.vocab_size).to(where)
    texts = [prompt.replace(PLACE, name.replace("_", " ")) for name in names for prompt in prompts]
    rows = []
    with inference(model, where, config.train.precision):
        for start in range(0, len(texts), config.evaluate.batch_size):
            ids, mask = tokenizer.encode(texts[start : start + config.evaluate.batch_size])
            z = model.encode("text", to_device({"input_ids": ids, "attention_mask": mask}, where))
            rows.append(z.float().cpu())
    means = torch.cat(rows).double().reshape(len(names), len(prompts), -1).mean(1).numpy()
    return dict(zip(names, means, strict=True))
