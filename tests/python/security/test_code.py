"""Files that would run code, were they believed: none of it runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cases.checkpoints import official_beats
from mover.config import AudioTowerConfig
from mover.configs.loading import read_yaml
from mover.data.clip import Reference
from mover.data.features import read_features
from mover.data.importers.pickles import read_pickle
from mover.data.importers.table import read_list
from mover.errors import UserError
from mover.evaluate.embeddings_file import load_embeddings
from mover.models.audio import AudioEncoder
from mover.models.forms import check_audio_form
from mover.models.inspection import inspect
from mover.models.pretrained import read_beats_file, weight_files, without_code


class Payload:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


def assert_dormant(mark: Path, *reads: Callable[[], object]) -> None:
    """Every read is refused, and nothing has run."""
    for read in reads:
        with pytest.raises(UserError):
            read()
    assert not mark.exists()


def test_the_payload_would_run(mark: Path) -> None:
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain", "nested"])
def test_checkpoints_run_no_code(kind: str, mark: Path, tmp_path: Path) -> None:
    path = tmp_path / "beats.pt"
    content = official_beats()
    if kind == "plain":
        path.write_bytes(pickle.dumps(Payload(mark)))
    elif kind == "nested":
        torch.save({**content, "model": {**content["model"], "extra": [{"x": (Payload(mark),)}]}}, path)
    else:
        torch.save({**content, "cfg": Payload(mark)}, path, _use_new_zipfile_serialization=kind == "zip")
    assert_dormant(
        mark,
        lambda: read_beats_file(path, "model.audio.checkpoint"),
        lambda: check_audio_form(path),
        lambda: AudioEncoder(AudioTowerConfig(checkpoint=path), 16000),
    )
    assert "holds code" in inspect(path).problem and not mark.exists()


def test_folders_of_weights_run_no_code(mark: Path, tmp_path: Path) -> None:
    """A pytorch_model.bin is a pickle; settings of config.json name code to import."""
    from mover.config import TextTowerConfig
    from mover.models.text import TextEncoder

    torch.save(
        {"embeddings.word_embeddings.weight": torch.zeros(100_000), "x": Payload(mark)}, tmp_path / "pytorch_model.bin"
    )
    sizes = {
        "vocab_size": 50,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    named = {"auto_map": {"AutoModel": "evil.Model"}, "_attn_implementation": "evil/kernels", "quantization_config": {}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", **sizes, **named}))
    (tmp_path / "evil.py").write_text(f"import os; os.system('touch {mark}')")
    assert_dormant(mark, lambda: TextEncoder(TextTowerConfig(checkpoint=tmp_path), 50, 12))


def test_settings_that_name_code_are_dropped() -> None:
    sizes = {"model_type": "vit", "hidden_size": 8, "layer_norm_eps": 1e-5}
    named = {
        "auto_map": {}, "_attn_implementation": "a/b", "attn_implementation": "a/b", "quantization_config": {},
        "_attn_implementation_internal": "a/b", "_experts_implementation": "a/b", "kernel_config": {},
        "use_kernels": True,
    }  # fmt: skip
    assert without_code(sizes | named) == sizes


def test_parts_of_weights_stay_in_their_folder(tmp_path: Path) -> None:
    for part in ("../x.bin", "/etc/passwd", "a/../../x.bin", "x\0.bin"):
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": part}}))
        with pytest.raises(UserError, match="lies outside of the folder"):
            weight_files(tmp_path)


def test_arrays_run_no_code(mark: Path, tmp_path: Path) -> None:
    array = np.array([Payload(mark)], dtype=object)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", ids=array, text=np.eye(1), video=np.eye(1))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:  # a member that is a bare pickle
        archive.writestr("ids.npy", pickle.dumps(Payload(mark)))
    (tmp_path / "b.npz").write_bytes(out.getvalue())
    (tmp_path / "c.npz").write_bytes(pickle.dumps(Payload(mark)))
    assert_dormant(
        mark,
        lambda: read_features(Reference(tmp_path / "a.npy")),
        lambda: list(read_list(tmp_path / "a.npy")),
        lambda: load_embeddings(tmp_path / "a.npz"),
        lambda: load_embeddings(tmp_path / "b.npz"),
        lambda: load_embeddings(tmp_path / "c.npz"),
    )


@pytest.mark.parametrize("protocol", range(6))
def test_annotations_run_no_code(protocol: int, mark: Path, tmp_path: Path) -> None:
    path = tmp_path / "descriptions.pkl"
    for value in (Payload(mark), {"a": Payload(mark)}, {"a": eval}, {"a": Path("x")}):
        path.write_bytes(pickle.dumps(value, protocol))
        assert_dormant(mark, lambda: read_pickle(path))


def test_configurations_run_no_code(mark: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for text in (
        f"name: !!python/object/apply:os.system ['touch {mark}']",
        f"name: !!python/object/new:os.system ['touch {mark}']",
        "name: !!python/name:os.system ''",
        "!!python/module:os : 1",
        "name: !Secret x",
    ):
        path.write_text(text)
        assert_dormant(mark, lambda: read_yaml(path))


@pytest.mark.parametrize(
    "text", ["a: !!int x", "a: !!float [1]", "a: 2001-99-99", "a: !!timestamp x", "? [a]\n: b", "a: !!binary é"]
)
def test_odd_values_of_yaml_are_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="line 1: not valid YAML"):
        read_yaml(path)
