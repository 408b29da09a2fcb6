"""Sampling: keyed randomness, equal parts, windows; and the tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mover.config import DataConfig
from mover.data import Tokenizer
from mover.data.sampling import cut_window, epoch_order, frame_times, generator
from mover.errors import UserError


def test_keys_give_streams_of_their_own() -> None:
    draws = {key: generator(*key).random() for key in [(0, 1, 2), (0, 2, 1), (1, 1, 2), (0, 1, 3)]}
    assert len(set(draws.values())) == 4
    assert generator(0, 1, 2).random() == draws[0, 1, 2]


def test_epoch_order() -> None:
    first, second = epoch_order(50, 0, 0), epoch_order(50, 0, 1)
    assert sorted(first) == sorted(second) == list(range(50)) and list(first) != list(second)
    assert list(first) == list(epoch_order(50, 0, 0)) and list(first) != list(epoch_order(50, 1, 0))


def test_one_frame_from_each_part() -> None:
    np.testing.assert_allclose(frame_times(8.0, 4, None), [1, 3, 5, 7])
    drawn = np.stack([frame_times(8.0, 4, generator(0, n)) for n in range(300)])
    parts = np.floor(drawn / 2)
    assert (parts == np.arange(4)).all()
    assert np.all(drawn.min(0) < np.arange(4) * 2 + 0.1) and np.all(drawn.max(0) > np.arange(4) * 2 + 1.9)


def test_windows() -> None:
    pcm = np.arange(1, 11, dtype=np.int16)
    window, length = cut_window(pcm, 4, None)
    assert list(window) == [4, 5, 6, 7] and length == 4 and window.dtype == np.int16
    window, length = cut_window(pcm, 13, None)
    assert list(window) == [*range(1, 11), 0, 0, 0] and length == 10
    starts = {int(cut_window(pcm, 4, generator(0, n))[0][0]) for n in range(200)}
    assert starts == set(range(1, 8))
    assert list(cut_window(pcm, 10, generator(0))[0]) == list(pcm)


CAPTIONS = ["a red bar", "a red ring going round", "an old man, singing", "ein Hund über Bord"] * 3


def test_tokenizer_layout() -> None:
    tokenizer = Tokenizer.train(CAPTIONS, max_tokens=40)
    assert [tokenizer._tokenizer.token_to_id(t) for t in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")] == [0, 1, 2, 3, 4]
    ids, mask = tokenizer.encode(["a red ring going round", "a red"])
    assert ids.dtype == mask.dtype == torch.int64 and ids.shape == mask.shape == (2, 7)
    assert ids[:, 0].tolist() == [0, 0] and ids[0, -1] == 2 and ids[1].tolist()[3:] == [2, 1, 1, 1]
    assert mask.tolist() == [[1] * 7, [1, 1, 1, 1, 0, 0, 0]]
    assert tokenizer.decode(ids[0].tolist()).strip() == "a red ring going round"
    assert int(ids.max()) < tokenizer.vocab_size
    assert tokenizer.encode([])[0].shape == (0, 0)


def test_long_and_strange_captions() -> None:
    tokenizer = Tokenizer.train(CAPTIONS, max_tokens=6)
    ids, mask = tokenizer.encode(["a red ring " * 50, "☃ 雪 \n\t <s> </s>", " "])
    assert ids.shape == (3, 6) and ids[0, -1] == 2 and mask[0].sum() == 6
    with pytest.raises(UserError, match="max_tokens"):
        Tokenizer.train(CAPTIONS, max_tokens=2)


def test_tokenizer_file(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(CAPTIONS, max_tokens=40)
    tokenizer.save(tmp_path / "tokenizer.json")
    config = DataConfig(manifest=tmp_path / "manifest.jsonl")
    again = Tokenizer.for_data(config)
    assert torch.equal(again.encode(CAPTIONS)[0], tokenizer.encode(CAPTIONS)[0])
    Tokenizer.train(CAPTIONS, max_tokens=40).save(tmp_path / "twin.json")
    assert (tmp_path / "twin.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        Tokenizer.load(tmp_path / "none.json", 40)
    (tmp_path / "bad.json").write_text('{"version": "1.0"')
    with pytest.raises(UserError, match=r"bad\.json is not a tokenizer"):
        Tokenizer.load(tmp_path / "bad.json", 40)
    text = (tmp_path / "tokenizer.json").read_text().replace("<pad>", "[PAD]")
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UserError, match="no token <pad>"):
        Tokenizer.load(tmp_path / "other.json", 40)
