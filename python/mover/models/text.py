"""RoBERTa over the tokens of a caption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mover.config import TextTowerConfig
from mover.errors import UserError
from mover.models.pretrained import load_folder, read_folder_config, set_dropout, without_code
from mover.models.sizes import initializer_range, require_multiple
from mover.models.tower import Tower, folder_architecture

if TYPE_CHECKING:
    from transformers import RobertaModel

_FIELD = "model.text.checkpoint"


class TextEncoder(Tower):
    """Captions to vectors: the last hidden state of the first token.

    Args:
        config: sizes, or the folder of a checkpoint, whose own `config.json` then gives the sizes.
        vocab_size: number of tokens of the tokenizer.
        max_tokens: longest caption, special tokens included.
        pad_id: id of the padding token.
        built: `architecture()` of the tower to build again; its weights are to come, no checkpoint is read.

    Raises:
        UserError: sizes that do not fit, or a checkpoint that does not load completely.
    """

    def __init__(
        self,
        config: TextTowerConfig,
        vocab_size: int,
        max_tokens: int,
        pad_id: int = 1,
        built: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if built is not None:
            self.roberta = _roberta_built(config, built)
        elif config.checkpoint is None:
            self.roberta = _random_roberta(config, vocab_size, max_tokens, pad_id)
        else:
            self.roberta = _pretrained_roberta(config, config.checkpoint, vocab_size, max_tokens, pad_id)
        self.roberta.set_attn_implementation("eager" if config.attention == "eager" else "sdpa")
        self.width: int = self.roberta.config.hidden_size
        self.set_up("model.text", config, self.roberta, self.roberta.encoder.layer)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode captions.

        Args:
            input_ids: int64 (B, L), L <= max_tokens.
            attention_mask: int64 (B, L), 1 for tokens and 0 for padding. The first token always counts.

        Returns:
            float32 (B, width).
        """
        return self.finish(self.body_output(input_ids, attention_mask))

    def body_output(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden state of the first token: float32 (B, width)."""
        first = torch.zeros_like(attention_mask)
        first[:, 0] = 1  # a row without a caption has no token to attend to: keep it finite
        hidden = self.roberta(input_ids=input_ids, attention_mask=attention_mask | first).last_hidden_state
        return hidden[:, 0].float()

    def architecture(self) -> dict[str, Any]:
        """The configuration of the RoBERTa network."""
        return folder_architecture(self.roberta.config)


def require_tokens(folder: Path, tokens: int, padding: int | None, vocab_size: int, pad_id: int) -> None:
    """Raise UserError unless the checkpoint in `folder`, of `tokens` tokens, was trained with this tokenizer's."""
    if tokens != vocab_size or padding != pad_id:
        raise UserError(
            f"{_FIELD}: {folder} was trained with {tokens} tokens and padding id {padding}, "
            f"but the tokenizer has {vocab_size} and {pad_id}. "
            f"Set data.tokenizer to the tokenizer.json of the checkpoint."
        )


def _random_roberta(config: TextTowerConfig, vocab_size: int, max_tokens: int, pad_id: int) -> RobertaModel:
    from transformers import RobertaConfig, RobertaModel

    require_multiple("model.text.hidden_size", config.hidden_size, "model.text.heads", config.heads)
    return RobertaModel(
        RobertaConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.intermediate_size,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            max_position_embeddings=max_tokens + pad_id + 1,  # positions start after the padding id
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            initializer_range=initializer_range(config.hidden_size),
            bos_token_id=0,
            pad_token_id=pad_id,
            eos_token_id=2,
        ),
        add_pooling_layer=False,
    )


def _roberta_built(config: TextTowerConfig, built: Mapping[str, Any]) -> RobertaModel:
    from transformers import RobertaConfig, RobertaModel

    stored = RobertaConfig.from_dict(without_code(built))
    set_dropout(stored, config.dropout)
    return RobertaModel(stored, add_pooling_layer=False)


def _pretrained_roberta(
    config: TextTowerConfig, folder: Path, vocab_size: int, max_tokens: int, pad_id: int
) -> RobertaModel:
    from transformers import RobertaConfig, RobertaModel

    stored = read_folder_config(RobertaConfig, folder, _FIELD)
    require_tokens(folder, stored.vocab_size, stored.pad_token_id, vocab_size, pad_id)
    longest = stored.max_position_embeddings - pad_id - 1
    if max_tokens > longest:
        raise UserError(
            f"{_FIELD}: {folder} reads at most {longest} tokens, but data.max_tokens is {max_tokens}. Lower it."
        )
    set_dropout(stored, config.dropout)
    return load_folder(RobertaModel, stored, folder, _FIELD)
