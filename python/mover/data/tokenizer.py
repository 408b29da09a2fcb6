"""Captions to token ids: byte-level BPE from a `tokenizer.json`, RoBERTa's or one trained on our own captions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from mover.config import DataConfig
from mover.data.manifest import write_atomically
from mover.errors import UserError

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_LONGEST = 100_000_000
"""Characters of a tokenizer.json; the largest vocabularies, of 256,000 tokens, take a third."""
_SPARSEST = 10
"""Ids for each token."""


class Tokenizer:
    """Encodes captions as `<s> … </s>`, padded to the longest of a call.

    Raises UserError when the vocabulary lacks one of `<s>`, `<pad>`, `</s>`.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, max_tokens: int) -> None:
        if max_tokens < 3:
            raise UserError(f"data.max_tokens must be at least 3 (start, one token, end), got {max_tokens}.")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self.start_id, self.pad_id, self.end_id = (self._id(token) for token in SPECIALS[:3])

    def _id(self, token: str) -> int:
        known: int | None = self._tokenizer.token_to_id(token)
        if known is None:
            raise UserError(f"The tokenizer has no token {token}. Use the tokenizer.json of a RoBERTa model.")
        return known

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> Tokenizer:
        """Read a `tokenizer.json`. Raises UserError naming the file."""
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(_LONGEST + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The tokenizer {path} cannot be read: {error}. Set data.tokenizer.") from None
        if len(text) > _LONGEST:
            raise UserError(f"{path} is not a tokenizer.json: it has more than {_LONGEST} characters.")
        try:
            tokenizer = tokenizers.Tokenizer.from_str(text)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the package raises nothing more specific, and its panics are no Exception
            raise UserError(f"{path} is not a tokenizer.json: {error}. Copy it again from its model.") from None
        loaded = cls(tokenizer, max_tokens)
        tokens = tokenizer.get_vocab_size(with_added_tokens=True)
        if loaded.vocab_size > _SPARSEST * tokens:  # ids are rows of an embedding table: one can ask for all memory
            raise UserError(
                f"{path} numbers {tokens} tokens with ids up to {loaded.vocab_size - 1}. Copy it again from its model."
            )
        return loaded

    @classmethod
    def for_data(cls, config: DataConfig) -> Tokenizer:
        """The tokenizer a data section names: `tokenizer`, by default `tokenizer.json` beside the manifest."""
        return cls.load(config.tokenizer or config.manifest.parent / "tokenizer.json", config.max_tokens)

    @classmethod
    def train(cls, captions: Iterable[str], max_tokens: int, vocab_size: int = 1000) -> Tokenizer:
        """Learn a byte-level BPE of at most `vocab_size` tokens, at least 261. Equal captions give equal tokenizers."""
        tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=None))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=list(SPECIALS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(captions, trainer)
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
        return cls(tokenizer, max_tokens)

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json`, in one piece."""
        write_atomically(Path(path), self._tokenizer.to_str(pretty=True))

    def fingerprint(self) -> str:
        """Hexadecimal digest of everything the ids of a caption depend on but `max_tokens`."""
        return hashlib.blake2b(self._tokenizer.to_str().encode(), digest_size=20).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of rows an embedding table needs: one more than the largest id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids int64 (B, L) and attention mask int64 (B, L), 1 at real tokens; L <= `max_tokens`.

        Longer captions lose their last tokens, never the end token. No texts give (0, 0).
        """
        # One at a time: the batched call would start threads of its own beside those that decode media.
        rows = [self._tokenizer.encode(text, add_special_tokens=False).ids[: self.max_tokens - 2] for text in texts]
        length = max((len(row) + 2 for row in rows), default=0)
        input_ids = torch.full((len(rows), length), self.pad_id, dtype=torch.int64)
        attention_mask = torch.zeros((len(rows), length), dtype=torch.int64)
        for position, row in enumerate(rows):
            input_ids[position, : len(row) + 2] = torch.tensor([self.start_id, *row, self.end_id])
            attention_mask[position, : len(row) + 2] = 1
        return input_ids, attention_mask

    def decode(self, input_ids: Sequence[int]) -> str:
        """The text of a row of ids, special tokens left out."""
        return str(self._tokenizer.decode(list(input_ids), skip_special_tokens=True))
