"""`mover embed` as a command: what it says, how it stops and goes on, and how much memory it takes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cases.untrained import FEATURES, feature_clips, untrained
from mover.cli import main
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


_SLOW = """
import sys, time
from mover.data.dataset import ClipDataset
from mover.cli import main
draw = ClipDataset.draw
def slow(self, *args):
    time.sleep(0.05)
    return draw(self, *args)
ClipDataset.draw = slow
sys.exit(main(sys.argv[1:]))
"""
"""The command, with clips that take a while to read."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_goes_on(checkpoint: Path, tmp_path: Path, number: signal.Signals) -> None:
    whole, out = tmp_path / "whole.npz", tmp_path / "e.npz"
    command = ["embed", "--checkpoint", str(checkpoint), "--threads", "1", "--batch-size", "4"]
    assert main([*command, "--out", str(whole)]) == 0
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, *command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    record = Path(f"{out}.part") / "progress.json"
    while process.poll() is None and not (record.exists() and re.search(r'"depth": [1-9]', record.read_text())):
        time.sleep(0.05)
    process.send_signal(number)
    said, complaints = process.communicate()
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert re.search(r"stopped with text 79 of 79, depth \d+ of 40, notes 0 of 40 done; the same command", said)
    assert complaints == ""
    assert not out.exists()
    assert main([*command, "--out", str(out)]) == 0
    assert out.read_bytes() == whole.read_bytes()


_MEASURED = """
import sys
from pathlib import Path
from mover.cli import main
from mover.evaluate import embed_checkpoint

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

real = embed_checkpoint.Parts
class Measured(real):
    def __init__(self, *args, **options):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
        self.before = memory("VmRSS")
        super().__init__(*args, **options)
    def remove(self):
        print("grown", memory("VmHWM") - self.before)
        super().remove()
embed_checkpoint.Parts = Measured
sys.exit(main(sys.argv[1:]))
"""
"""The command, and by how much its memory grew from before the first batch until the file was whole."""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """120 MB of rows, 30 MB of them of one modality."""
    count, width = 600, 12500
    manifest, out = feature_clips(tmp_path / "data", count), tmp_path / "e.npz"
    settings = {"model__embed_dim": width, "evaluate__batch_size": 32}
    folder = untrained(tmp_path / "best", manifest, **FEATURES, **settings)
    command = ["embed", "--checkpoint", str(folder), "--out", str(out), "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *command], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    grown = int(re.search(r"grown (\d+)", done.stdout)[1])  # type: ignore[index]
    assert out.stat().st_size > 115e6
    assert grown < 90e6
    assert np.isfinite(load_embeddings(out).vectors["text"][-1]).all()
