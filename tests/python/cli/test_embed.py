"""`mover embed` as a command: what it says, how it stops and goes on, and how much memory it takes."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.untrained import FEATURES, feature_clips, untrained
from mover.cli import main
from mover.data.dataset import ClipDataset
from mover.evaluate import embed_checkpoint
from mover.evaluate.embed_parts import Parts
from mover.evaluate.embeddings_file import FORMATS, load_embeddings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On 40 clips of features."""
    folder = tmp_path_factory.mktemp("features")
    return untrained(folder / "run" / "checkpoints" / "best", feature_clips(folder / "data", 40), **FEATURES)


def test_what_it_says(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "e.npz"
    command = ["embed", "--checkpoint", str(checkpoint), "--out", str(out), "--threads", "1"]
    assert main(command) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert re.fullmatch(rf"{checkpoint}: embedding 40 clips of .*manifest.jsonl, split test, on (cpu|cuda)", lines[0])
    assert lines[1:-1] == [
        f"what is done is kept in {out}.part until the file is whole", "text: 79 of 79", "depth: 40 of 40",
        "notes: 40 of 40",
    ]  # fmt: skip
    assert lines[-1] == f"{out}: written: 40 clips, 79 captions, d = 16; text, depth, notes"
    assert said.err == ""
    assert main(command) == 0
    assert capsys.readouterr().out == (
        f"{out}: up to date, nothing to do: 40 clips, 79 captions, d = 16; text, depth, notes\n"
    )
    assert main([*command, "--missing", "drop"]) == 2
    assert "made of another policy for missing media: replace it with --overwrite" in capsys.readouterr().err
    assert main([*command, "--missing", "drop", "--overwrite", "--batch-size", "7", "--workers", "1"]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: --checkpoint, --out"),
        (["--checkpoint", "nowhere", "--out", "e.npz"], "no checkpoint at nowhere"),
        (["--checkpoint", "BEST", "--out", "e.csv"], f"ends in {', '.join(FORMATS)}; this name ends in '.csv'"),
        (["--checkpoint", "BEST", "--out", "e.npz", "--split", "dev"], "No clip belongs to the split 'dev'"),
        (["--checkpoint", "BEST", "--out", "e.npz", "--manifest", "no.jsonl"], "There is no manifest no.jsonl"),
        (["--checkpoint", "BEST", "--out", "e.npz", "--device", "abacus"], "The device must be auto, cpu, cuda"),
        (["--checkpoint", "BEST", "--out", "e.npz", "--batch-size", "0"], "expected an integer of at least 1, got '0'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    checkpoint: Path, tmp_path: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["embed", *(str(checkpoint) if word == "BEST" else word for word in words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def forked(act: Callable[[], int], said: Path) -> int:
    """Run `act` in a process of its own, which prints into a file; the number of the process."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            sys.stdout = sys.stderr = open(said, "w")  # noqa: SIM115
            code = act()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


def test_a_stopped_command_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    whole, out, said = tmp_path / "whole.npz", tmp_path / "e.npz", tmp_path / "said"
    command = ["embed", "--checkpoint", str(checkpoint), "--threads", "1", "--batch-size", "4"]
    assert main([*command, "--out", str(whole)]) == 0
    draw = ClipDataset.draw

    def slowly() -> int:
        ClipDataset.draw = lambda self, *values: time.sleep(0.05) or draw(self, *values)  # type: ignore[method-assign]
        return main([*command, "--out", str(out)])

    child = forked(slowly, said)
    record = Path(f"{out}.part") / "progress.json"
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if record.exists() and re.search(r'"depth": [1-9]', record.read_text()):
            break
        time.sleep(0.02)
    os.kill(child, signal.SIGINT)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    last = said.read_text().splitlines()[-1]
    assert re.fullmatch(
        r"stopped with text 79 of 79, depth \d+ of 40, notes 0 of 40 done; the same command goes on from there", last
    )
    assert not out.exists()
    assert main([*command, "--out", str(out)]) == 0
    assert out.read_bytes() == whole.read_bytes()


def memory(name: str) -> int:
    """Bytes of a line of the kernel's record of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


class Measured(Parts):
    """Prints by how much memory grew from before the first batch until the file was whole."""

    def __init__(self, *values: Any, **options: Any) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
        self.before = memory("VmRSS")
        super().__init__(*values, **options)

    def remove(self) -> None:
        print("grown", memory("VmHWM") - self.before)
        super().remove()


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 MB of rows, 30 MB of them of one modality."""
    manifest, out, said = feature_clips(tmp_path / "data", 600), tmp_path / "e.npz", tmp_path / "said"
    settings = {"model__embed_dim": 12500, "evaluate__batch_size": 32}
    folder = untrained(tmp_path / "best", manifest, **FEATURES, **settings)
    monkeypatch.setattr(embed_checkpoint, "Parts", Measured)
    command = ["embed", "--checkpoint", str(folder), "--out", str(out), "--threads", "1"]
    _, status = os.waitpid(forked(lambda: main(command), said), 0)
    assert status == 0, said.read_text()
    assert out.stat().st_size > 115e6
    grown = int(re.findall(r"grown (\d+)", said.read_text())[0])
    assert grown < 60e6
    assert np.isfinite(load_embeddings(out).vectors["text"][-1]).all()
