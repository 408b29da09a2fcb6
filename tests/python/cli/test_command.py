"""The command line as a user meets it: help, exit codes, one line per error, no traceback."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mover.cli import main
from mover.cli.main import COMMANDS
from mover.data.importers import IMPORTERS

ROOT = Path(__file__).parents[3]
PATHS = ("--annotations", "a", "--media", "b", "--out", "c")


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


def test_help_of_train_tells_of_other_modalities_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    _, out, _ = outcome(capsys, "train", "--model.others.depth.kind", "image", "--help")
    assert out.count("\nmodel.others.NAME:\n") == 1 and "model.others.depth" not in out
    assert "--model.others.NAME.kind image|features" in out
    told = " ".join(out.split())
    assert "[image: 12, features: 0]" in told and "[features: required]" in told and "under 'others'" in told
    code, _, err = outcome(capsys, "train", "--model.others.NAME.kind", "image")
    assert code == 2 and "model.others.NAME: expected a name of a-z" in err
    code, _, err = outcome(capsys, "train", "model.others.depth.kin=image")
    assert code == 2 and "did you mean model.others.depth.kind?" in err


@pytest.mark.parametrize("name", list(IMPORTERS))
def test_help_of_an_importer_teaches_its_files_and_options(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, err = outcome(capsys, "import", name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: mover import {name} --annotations PATH --media DIR --out FILE")
    assert IMPORTERS[name].title in out and f"\n  mover import {name} --annotations" in out and "\nMedia" in out
    for option in IMPORTERS[name].options:
        assert f"--{option.name}" in out
    assert f"\n  {name:<12} {IMPORTERS[name].title}\n" in outcome(capsys, "import", "--help")[1]


def commands(text: str) -> list[list[str]]:
    """The words of each `mover import …` line with paths, continued lines joined."""
    lines = text.replace("\\\n", " ").split("\n")
    return [shlex.split(line, comments=True)[1:] for line in lines if "mover import" in line and "--out" in line]


def test_commands_in_the_docs_name_sets_and_options_that_exist() -> None:
    from mover.cli.import_data import parser_of

    texts = [(ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")]
    texts += [importer.guide for importer in IMPORTERS.values()]
    found = [words for text in texts for words in commands(text) if words[1] != "NAME"]
    assert {words[1] for words in found} == set(IMPORTERS) and len(found) > 20
    for words in found:
        parser_of(IMPORTERS[words[1]]).parse_args(words[2:])


def test_import_says_what_there_is_and_writes_nothing_where_it_cannot(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table, media, out = tmp_path / "vggsound.csv", tmp_path / "media", tmp_path / "set" / "manifest.jsonl"
    table.write_text("a,1,dog barking,train\nb,2,waterfall,train\nb,9,waterfall,test\n")
    media.mkdir()
    (media / "a_000001.mp4").write_bytes(b"")
    (media / "b_000009.wav").write_bytes(b"")
    argv = ("import", "vggsound", "--annotations", str(table), "--media", str(media), "--out")
    code, said, err = outcome(capsys, *argv, str(out))
    assert (code, err) == (0, "")
    assert said.splitlines() == [
        f"{out}: 3 clips",
        "  train: 2 clips, 2 captions, 1 without video, 1 without audio",
        "  test: 1 clips, 1 captions, 1 without video",
    ]
    assert sorted(path.name for path in out.parent.iterdir()) == ["manifest.jsonl", "tokenizer.json"]
    code, _, err = outcome(capsys, *argv, str(table / "manifest.jsonl"))
    assert code == 2 and f"{table / 'manifest.jsonl'} cannot be written" in err and "Name another file" in err


def test_help_and_version_load_neither_torch_nor_the_operators() -> None:
    code = (
        "import sys\nfrom mover.cli import main\nfrom mover.cli.main import COMMANDS\n"
        "helps = [[name, '--help'] for name in (*COMMANDS, 'import vatex')]\n"
        "for argv in (['--help'], ['--version'], *([*name.split(), end] for name, end in helps)):\n"
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
        (("train", "--config", "demo", "faster"), "'faster' is not an option: they begin with --, or read section."),
        (("train", "--config", "demo", "train.steps=-3"), "train.steps: expected an integer of at least 1, got '-3'"),
        (("train", "--config", "demo", "train.stepz=3"), "--train.stepz: there is no such setting; did you mean"),
        (("train", "--config", "demo", "steps=3"), "--steps: there is no such setting; did you mean train.steps?"),
        (
            ("train", "weights.text=a/b"),
            "--weights.text: there is no such setting; did you mean model.text.checkpoint?",
        ),
        (("train", "weights.smell=a"), "--weights.smell: there is no such setting"),
        (("train", "--config", "demo", "data.manifset=x"), "did you mean data.manifest?"),
        (("train", "--resume", "tain.steps=3"), "did you mean train.steps?"),
        (("evaluate",), "name one run, checkpoint or embeddings file"),
        (("evaluate", "--checkpoint", "a", "--embeddings", "b"), "name one run, checkpoint or embeddings file"),
        (("evaluate", "--checkpoint", "nowhere"), "no checkpoint at nowhere"),
        (("evaluate", "--embeddings", "nowhere.npz"), "no embeddings file at nowhere.npz"),
        (("evaluate", "--embeddings", "x.npz", "--split", "val"), "--split goes with a checkpoint"),
        (("evaluate", "--checkpoint", "a", "--missing", "ignore"), "invalid choice: 'ignore'"),
        (("evaluate", "--checkpoint", "a", "--batch-size", "0"), "expected an integer of at least 1, got '0'"),
        (("synth",), "required: --out"),
        (("synth", "--out", "x", "--train", "none"), "expected an integer of at least 1, got 'none'"),
        (("import",), "the following arguments are required: NAME. See mover import --help."),
        (("import", "coco"), "invalid choice: 'coco'"),
        (("import", "vatex"), "required: --annotations, --media, --out. See mover import vatex --help."),
        (
            ("import", "msrvtt", *PATHS, "--untrimmed"),
            "unrecognized arguments: --untrimmed. See mover import msrvtt --help.",
        ),
        (("import", "msrvtt", *PATHS, "--protocol", "9k"), "--protocol: invalid choice: '9k'"),
        (("import", "vatex", *PATHS), "a: expected the folder that holds vatex_training*.json"),
        (("import", "clotho", *PATHS, "--vocab-size", "no"), "expected an integer of at least 1, got 'no'"),
        (("overlap", "a.jsonl"), "required: EVALUATED"),
        (("overlap", "a.jsonl", "b.jsonl"), "There is no manifest a.jsonl"),
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train.steps=7", {"train.steps": 7}),
        ("train.batch-size=7 name=mine", {"train.batch_size": 7, "name": "mine"}),
        ("--resume data.manifest=a=b.jsonl", {"data.manifest": Path("a=b.jsonl")}),
        ("--data.manifest train.steps=7", {"data.manifest": Path("train.steps=7"), "train.steps": 10000}),
        ("--train.steps 5 train.steps=6 modalities=text,audio", {"train.steps": 6, "modalities": ("text", "audio")}),
        ("train.steps=6 --train.steps 5 data.tokenizer=", {"train.steps": 5, "data.tokenizer": Path("")}),
    ],
)
def test_settings_as_words(words: str, expected: dict[str, object]) -> None:
    from mover.cli.parser import Parser, add_config_option, add_settings, parse_settings
    from mover.configs.fields import values_of

    parser = Parser(prog="mover train")
    add_config_option(parser)
    parser.add_argument("--resume", action="store_true")
    add_settings(parser, [])
    _, config = parse_settings(parser, words.split())
    assert {name: values_of(config)[name] for name in expected} == expected


def test_hyphens_do_for_underscores(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = outcome(capsys, "train", "--config", "demo", "--train.batch-size=0")
    assert "train.batch_size: expected an integer of at least 1, got '0'." in err


def environment() -> dict[str, str]:
    """The environment with the mover under test on the path, installed or not."""
    import mover

    return {**os.environ, "PYTHONPATH": str(Path(mover.__file__).parents[1])}
