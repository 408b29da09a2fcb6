"""The command line as a user meets it: help, exit codes, one line per error, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mover.cli import main
from mover.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]


def outcome(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as stop:  # help and version end the way argparse ends
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("argv", [(), ("--help",), *((name, "--help") for name in COMMANDS)])
def test_help(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    code, out, err = outcome(capsys, *argv)
    assert (code, err) == (0, "")
    assert out.startswith("usage: mover")


def test_help_of_train_lists_every_setting_and_the_values_of_the_configuration(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mover.config import Config
    from mover.configs import load_config
    from mover.configs.fields import leaves

    monkeypatch.setenv("COLUMNS", "110")
    _, plain, _ = outcome(capsys, "train", "--help")
    for leaf in leaves(Config):
        assert f"--{leaf.path} {leaf.placeholder}" in plain
    assert "[10000]" in plain
    _, demo, _ = outcome(capsys, "train", "--config", "demo", "--help")
    assert f"[{load_config('demo').train.steps}]" in demo


def test_help_and_version_load_neither_torch_nor_the_operators() -> None:
    code = (
        "import sys\nfrom mover.cli import main\n"
        "for argv in (['--help'], ['--version'], ['train', '--help'], ['evaluate', '--help'], ['synth', '--help']):\n"
        "    try: main(argv)\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'numpy', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment())


@pytest.mark.parametrize("command", [["-m", "mover"], [str(ROOT / "scripts" / "train.py")]])
def test_the_other_doors(command: list[str]) -> None:
    got = subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True, env=environment())
    assert (got.returncode, got.stderr) == (0, "")
    assert "mover" in got.stdout


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("tarin",), "invalid choice: 'tarin'"),
        (("train", "--config", "nothing"), "no configuration 'nothing'"),
        (("train", "--config", "demo", "--train.steps", "-3"), "train.steps: expected an integer of at least 1"),
        (("train", "--config", "demo", "--train.steps"), "--train.steps: expected one argument"),
        (("train", "--config", "demo", "--train.stepz", "3"), "--train.stepz: there is no such setting; did you mean"),
        (("train", "--config", "demo", "--train.step", "3"), "--train.step: there is no such setting"),
        (("train", "--config", "demo", "--batch-size=3"), "did you mean train.batch_size?"),
        (("train", "--config", "demo", "faster"), "'faster' is not an option"),
        (("train", "--config", "demo", "--resume", "--overwrite"), "exclude each other"),
        (("train", "--config", "demo", "--data.manifest", "gone.jsonl"), "gone"),
        (("train", "--config", "demo", "--train.device", "tpu"), "The device must be"),
        (("train", "--config", "demo", "--resume", "--name", "never-run"), "no checkpoint at"),
        (("evaluate",), "give either --checkpoint or --embeddings"),
        (("evaluate", "--checkpoint", "a", "--embeddings", "b"), "give either --checkpoint or --embeddings"),
        (("evaluate", "--checkpoint", "nowhere"), "no checkpoint at nowhere"),
        (("evaluate", "--embeddings", "nowhere.npz"), "no embeddings file at nowhere.npz"),
        (("evaluate", "--embeddings", "x.npz", "--split", "val"), "--split goes with --checkpoint"),
        (("evaluate", "--checkpoint", "a", "--missing", "ignore"), "invalid choice: 'ignore'"),
        (("evaluate", "--checkpoint", "a", "--batch-size", "0"), "expected an integer of at least 1, got '0'"),
        (("synth",), "required: --out"),
        (("synth", "--out", "x", "--train", "none"), "expected an integer of at least 1, got 'none'"),
        (("import", "coco"), "invalid choice: 'coco'"),
        (
            ("import", "msrvtt", "--annotations", "a", "--media", "b", "--out", "c", "--untrimmed"),
            "goes with audiocaps",
        ),
        (
            ("import", "msrvtt", "--annotations", "a", "--media", "b", "--out", "c", "--split-list", "test"),
            "expected SPLIT=FILE",
        ),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = outcome(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert not list(tmp_path.iterdir())


def test_hyphens_do_for_underscores(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = outcome(capsys, "train", "--config", "demo", "--train.batch-size=0")
    assert "train.batch_size: expected an integer of at least 1, got '0'." in err


def environment() -> dict[str, str]:
    """The environment with the mover under test on the path, installed or not."""
    import mover

    return {**os.environ, "PYTHONPATH": str(Path(mover.__file__).parents[1])}
