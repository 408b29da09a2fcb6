from __future__ import annotations

import pytest
import torch

from mover.config import TextTowerConfig
from mover.errors import UserError
from mover.models.text import TextEncoder


def test_full_size_is_roberta_base() -> None:
    with torch.device("meta"):
        encoder = TextEncoder(TextTowerConfig(), 50265, 512)
    config = encoder.roberta.config
    assert (config.vocab_size, config.max_position_embeddings, config.type_vocab_size) == (50265, 514, 1)
    assert (config.layer_norm_eps, config.initializer_range) == (1e-5, 0.02)
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)
    assert sum(p.numel() for p in encoder.parameters()) == 124_055_040
    assert encoder.roberta.config._attn_implementation == "sdpa"


def test_padded_and_trimmed_are_the_same(text_config: TextTowerConfig) -> None:
    encoder = TextEncoder(text_config, 50, 12).eval()
    ids = torch.tensor([[0, 7, 9, 2, 1, 1, 1, 1], [0, 5, 6, 7, 8, 9, 10, 2]])
    padded = encoder(ids, (ids != 1).long())
    assert padded.shape == (2, encoder.width)
    torch.testing.assert_close(encoder(ids[:1, :4], torch.ones(1, 4, dtype=torch.int64))[0], padded[0])


def test_longest_caption_fits(text_config: TextTowerConfig) -> None:
    encoder = TextEncoder(text_config, 50, 12)
    assert encoder(torch.full((1, 12), 5), torch.ones(1, 12, dtype=torch.int64)).isfinite().all()


def test_rows_without_a_caption_are_finite(text_config: TextTowerConfig) -> None:
    encoder = TextEncoder(text_config, 50, 12)
    ids = torch.tensor([[0, 7, 9, 2], [1, 1, 1, 1]])
    out = encoder(ids, torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]))
    out.pow(3).sum().backward()
    assert out.isfinite().all()
    torch.testing.assert_close(out[1], encoder(ids, torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]))[1])
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_sizes_that_do_not_fit_are_named(text_config: TextTowerConfig) -> None:
    with pytest.raises(UserError, match=r"model\.text\.hidden_size.*model\.text\.heads.*16.*3"):
        TextEncoder(text_config.model_copy(update={"heads": 3}), 50, 12)
