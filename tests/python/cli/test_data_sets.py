"""From published files to Recall@1: the blocks of commands in docs/datasets.md, as they stand, on small data sets.

The clips are real, the encoders small random ones under the names of the public checkpoints; with the mark `slow` the
encoders have the full size, with random weights, at batch 2.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import RobertaConfig, RobertaModel, ViTConfig, ViTModel

from cases.checkpoints import official_beats
from cases.data_sets import BUILDERS, Library
from cases.machine import available_bytes
from mover.cli import main
from mover.configs import shipped
from mover.configs.loading import find_config
from mover.data.importers import IMPORTERS
from mover.data.tokenizer import Tokenizer
from mover.train import trainer

DOCS = Path(__file__).parents[3] / "docs" / "datasets.md"
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
STEP = ["train.steps=1", "train.batch_size=2", "train.device=cpu", "train.threads=1", "data.workers=0"]
TINY = [
    *["data.image_size=32", "data.frames=2", "data.audio_seconds=1", "data.max_tokens=16", "model.embed_dim=8"],
    *["model.text.layers=1", "model.text.hidden_size=16", "model.text.heads=2", "model.text.intermediate_size=16"],
]
FULL = [
    *["model.text.checkpoint=none", "model.video.checkpoint=none", "model.audio.checkpoint=none"],
    *["data.tokenizer=none", "optimizer.tower_lr=none", "train.precision=float32"],
    *["data.frames=2", "data.audio_seconds=2"],  # the encoders are what is large here
]
THREE = ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"]
THREE += [f"{name} {score}" for score in ("span", "cosine") for name in ("T2VA", "VA2T")]
SOUND = ["T2A", "A2T"]
EXPECTED = {
    "msrvtt": (THREE, {"T2V": 3, "V2T": 3, "T2VA": 3}), "msrvtt-7k": (THREE, {"T2V": 3}),
    "msrvtt-1k-B": (THREE, {"T2V": 3}), "msrvtt-full": (THREE, {"T2V": 4, "V2T": 2, "T2VA": 4}),
    "audiocaps": (SOUND, {"T2A": 4, "A2T": 2}), "audiocaps2": (SOUND, {"T2A": 4, "A2T": 2}),
    "vatex": (THREE, {"T2V": 6, "V2T": 3}), "vatex-zh": (THREE, {"T2V": 9, "V2T": 3}),
    "clotho": (SOUND, {"T2A": 15, "A2T": 3}), "vast": (THREE, {"T2V": 3}), "sounddescs": (SOUND, {"T2A": 3}),
    "vggsound": (THREE, {"T2V": 3}), "audioset": (SOUND, {"T2A": 3}), "as2m": (THREE, {"T2A": 3}),
    "k700": (THREE, {"T2V": 3}), "pretrain": (THREE, {"T2V": 3, "VA2T": 3}),
}  # fmt: skip
"""Block to the directions its evaluation reports, and the number of queries of some."""
WITH_GAPS = {name for name in EXPECTED if name.startswith(("msrvtt", "audiocaps"))} | {"pretrain", "audioset", "k700"}
"""Blocks of clips that lack something, as the doctor says: a file that is gone, pictures to sounds, captions."""


def blocks(text: str, indent: str) -> dict[str, list[str]]:
    """Blocks of commands that begin with `mover import`, by the folder they import to; continued lines are joined."""
    found = {}
    for block in re.findall(rf"(?m)(?:^{indent}\S.*\n)+", text.replace(f"\\\n{indent}   ", "")):
        lines = [line.removeprefix(indent).partition("  # ")[0].strip() for line in block.splitlines()]
        out = re.search(r"data/([\w-]+)/manifest.jsonl", block)
        if lines[0].startswith("mover import") and "mover train" in block and out and out[1] != "NAME":
            found[out[1]] = lines
    return found


def documented() -> dict[str, list[str]]:
    """The blocks of docs/datasets.md, and the protocols of MSR-VTT that are to be imported likewise."""
    found = blocks(DOCS.read_text(encoding="utf-8"), "    ")
    for protocol in ("7k", "1k-B"):
        lines = [line.replace("msrvtt-full", f"msrvtt-{protocol}") for line in found["msrvtt-full"]]
        found[f"msrvtt-{protocol}"] = [line.replace("protocol full", f"protocol {protocol}") for line in lines]
    return found


BLOCKS = documented()


def test_every_importer_and_protocol_has_a_block() -> None:
    imports = {name: shlex.split(lines[0]) for name, lines in BLOCKS.items()}
    assert {words[2] for words in imports.values()} == set(IMPORTERS) == set(BUILDERS)
    assert set(BLOCKS) == set(EXPECTED)
    protocols = {words[words.index("--protocol") + 1] for words in imports.values() if "--protocol" in words}
    (choice,) = (option for option in IMPORTERS["msrvtt"].options if option.name == "protocol")
    assert protocols | {choice.default} == set(choice.choices)


MADE = {"demo", "views", "digits", "notes", "stills"}


@pytest.mark.parametrize("name", sorted(set(shipped()) - {"default", *MADE}))
def test_the_head_of_a_configuration_has_the_commands_of_the_docs(name: str) -> None:
    head = find_config(name).read_text(encoding="utf-8").partition("\nname:")[0]
    (lines,) = blocks(head + "\n", "#   ").values()
    assert [line for line in lines if not line.endswith("--check")] == BLOCKS[name]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three public checkpoints under their names, small and random."""
    folder = tmp_path_factory.mktemp("models") / "checkpoints"
    tokenizer = Tokenizer.train(["a person does this and that", "a dog barks, then a car passes"], 20, 270)
    sizes = {**SMALL, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 22, "type_vocab_size": 1}
    RobertaModel(RobertaConfig(**sizes), add_pooling_layer=False).save_pretrained(folder / "roberta-base")
    tokenizer.save(folder / "roberta-base" / "tokenizer.json")
    vit = folder / "vit-base-patch16-224"
    ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=16), add_pooling_layer=False).save_pretrained(vit)
    (vit / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    torch.save(official_beats(), folder / "BEATs_iter3_plus_AS2M.pt")
    return folder


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def build(name: str, root: Path, library: Library) -> None:
    """The data sets that a block reads."""
    for importer in dict.fromkeys(re.findall(r"mover import (\S+)", "\n".join(BLOCKS[name]))):
        BUILDERS[importer](root, library)


def run_block(name: str, settings: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, float]]:
    """Run the commands of a block in the working directory, settings added to `mover train`; the metrics."""
    metrics = None
    for line in BLOCKS[name]:
        capsys.readouterr()
        words = shlex.split(line)
        if words[0] == "cat":
            stems = re.search(r"cat (\S+)\{(.*)\}(\S+) > (\S+)", line)
            assert stems is not None
            parts = [Path(stems[1] + stem + stems[3]).read_text() for stem in stems[2].split(",")]
            Path(stems[4]).write_text("".join(parts))
            continue
        code = main(words[1:] + (settings if words[1] == "train" else []))
        said = capsys.readouterr()
        expected = 1 if words[1] == "doctor" and name in WITH_GAPS else 0
        assert code == expected, f"{line}\n{said.out}{said.err}"
        if words[1] == "evaluate":
            metrics = json.loads(Path(said.out.rpartition("written to ")[2].strip()).read_text())
    assert metrics is not None
    return metrics


def check(name: str, metrics: dict[str, dict[str, float]]) -> None:
    directions, counts = EXPECTED[name]
    assert [direction for direction in metrics if not direction.startswith("_")] == directions
    assert {direction: metrics[direction]["N"] for direction in counts} == counts
    assert all(0 <= metrics[direction]["R@1"] <= metrics[direction]["R@10"] <= 100 for direction in directions)


@pytest.mark.parametrize("name", list(BLOCKS))
def test_from_files_to_recall(
    name: str,
    library: Library,
    checkpoints: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for picture in ("draw_curves", "draw_plans"):  # tested elsewhere, and half of the time
        monkeypatch.setattr(trainer, picture, lambda *args: None)
    build(name, tmp_path, library)
    os.symlink(checkpoints, "checkpoints")
    if name == "pretrain":  # is evaluated on a set of its own
        build("msrvtt", tmp_path, library)
        assert main(shlex.split(BLOCKS["msrvtt"][0])[1:]) == 0
    check(name, run_block(name, STEP + TINY, capsys))


def test_a_run_needs_none_of_the_files_it_began_from(
    library: Library,
    checkpoints: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its checkpoint is evaluated, and trained on, where the towers' own checkpoints and tokenizer are gone."""
    monkeypatch.chdir(tmp_path)
    build("clotho", tmp_path, library)
    os.symlink(checkpoints, "checkpoints")
    metrics = run_block("clotho", STEP + TINY, capsys)
    os.unlink("checkpoints")
    assert main(["evaluate", "--checkpoint", "runs/clotho/checkpoints/last", "--json", "again.json"]) == 0
    again = json.loads(Path("again.json").read_text())
    assert [again[name]["R@1"] for name in EXPECTED["clotho"][0]] == [
        metrics[name]["R@1"] for name in EXPECTED["clotho"][0]
    ]
    assert main(["train", "--config", "runs/clotho/config.yaml", "--resume", "train.steps=2"]) == 0
    assert "step 2" in capsys.readouterr().out


MAIN = [next(name for name, lines in BLOCKS.items() if lines[0].split()[2] == importer) for importer in IMPORTERS]


@pytest.mark.slow
@pytest.mark.full_size
@pytest.mark.parametrize("name", MAIN)
def test_from_files_to_recall_with_encoders_of_the_full_size(
    name: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if available_bytes() < 10 << 30:
        pytest.skip("needs 10 GiB of available memory")
    if shutil.disk_usage(tmp_path).free < 12 << 30:
        pytest.skip("needs 12 GiB of free disk")
    monkeypatch.chdir(tmp_path)
    build(name, tmp_path, library)
    try:
        check(name, run_block(name, STEP + FULL, capsys))
    finally:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)  # gigabytes
