"""Reading a configuration: shipped files, overrides, and a sentence for everything that can be wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mover.config import Config
from mover.configs import config_text, differences, load_config, save_config, shipped
from mover.configs.fields import leaves, values_of
from mover.errors import UserError


def test_shipped_configurations_load_and_begin_with_a_comment() -> None:
    assert {"demo", "default", "msrvtt"} <= set(shipped())
    folder = Path(load_config.__code__.co_filename).parent
    for name in shipped():
        load_config(name)
        assert (folder / f"{name}.yaml").read_text().startswith("# ")
    assert load_config("demo").folder == Path("runs/demo")


def test_overrides_win_over_the_file_and_keep_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntrain:\n  steps: 7\n  batch_size: 3\noptimizer:\n  lr: 1e-4\n")
    config = load_config(path, {"train.steps": "9", "model.text.layers": "1"})
    assert (config.name, config.train.steps, config.train.batch_size, config.optimizer.lr) == ("mine", 9, 3, 1e-4)
    assert config.model.text.layers == 1
    assert config.model.video == Config().model.video


def test_values_as_they_come_from_the_command_line() -> None:
    config = load_config(
        None,
        {
            "modalities": "text,audio",
            "objective.learn_temperature": "false",
            "objective.mover": "none",
            "optimizer.betas": "0.8,0.9",
            "optimizer.clip_norm": "none",
            "data.cache": "none",
            "data.tokenizer": "a/b.json",
        },
    )
    assert config.modalities == ("text", "audio")
    assert config.objective.learn_temperature is False
    assert config.objective.mover is None
    assert config.optimizer.betas == (0.8, 0.9)
    assert config.optimizer.clip_norm is None
    assert config.data.cache == "none"
    assert config.data.tokenizer == Path("a/b.json")


def test_saved_and_read_back_is_the_same(tmp_path: Path) -> None:
    config = load_config("demo", {"objective.mover": "none", "modalities": "video,text"})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert differences(config, config) == {}
    other = load_config("demo", {"train.steps": 5, "modalities": "video,text", "objective.mover": "none"})
    assert differences(config, other) == {"train.steps": (config.train.steps, 5)}


def test_what_a_configuration_changes_is_shown() -> None:
    given = {"train.steps": "5", "train.seed": "?", "data.frames": "8"}
    config = load_config("demo", {"train.steps": "5", "data.frames": "8", "data.tokenizer": "x" * 70})
    head, *lines, last = config_text(config, "my.yaml", given).splitlines()
    assert head == "configuration: my.yaml, and 2 from the command line, marked *; defaults in brackets"
    assert last.endswith("everything is written to runs/demo/config.yaml")
    rows, section = {}, ""
    for line in lines:
        if line[2] not in " *":
            section = line.strip() + "."
        else:
            mark, name, value, default = line[2], *line[4:].split()
            rows[section + name] = (mark, value, default)
    changed = differences(Config(), config)
    assert set(rows) == set(changed) | {"data.frames"}
    assert rows["train.steps"] == ("*", "5", "[10000]") and rows["data.frames"] == ("*", "8", "[8]")
    assert rows["name"] == (" ", "demo", "[run]") and rows["model.audio.dropout"] == (" ", "0", "[0.1]")
    assert all(len(line) <= 110 for line in lines)
    starts = {line.index("[") for line in lines if "[" in line and "xxx" not in line}
    assert len(starts) == 1
    assert config_text(Config(), None).splitlines() == [
        "configuration: the defaults",
        "every setting has its default; everything is written to runs/run/config.yaml",
    ]


def test_empty_sections_stand_for_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("train:\nobjective:\n  transport:\n")
    assert load_config(path) == Config()
    path.write_text("")
    assert load_config(path) == Config()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"train.steps": "-3"}, "train.steps: expected an integer of at least 1, got '-3'."),
        ({"train.steps": "many"}, "train.steps: expected an integer of at least 1, got 'many'."),
        ({"train.steps": "2.5"}, "train.steps: expected an integer of at least 1, got '2.5'."),
        ({"train.stepz": "3"}, "train.stepz: there is no such setting; did you mean train.steps?"),
        ({"steps": "3"}, "steps: there is no such setting; did you mean train.steps?"),
        ({"train.whatever_it_is": "3"}, "train.whatever_it_is: there is no such setting. Known here: steps, batch"),
        ({"train": "3"}, "train: there is no such setting"),
        ({"optimizer.lr": "nan"}, "optimizer.lr: expected a number of more than 0, got 'nan'."),
        ({"optimizer.lr": "0"}, "optimizer.lr: expected a number of more than 0, got '0'."),
        ({"optimizer.clip_norm": "-1"}, "optimizer.clip_norm: expected a number of more than 0, or none, got '-1'."),
        ({"optimizer.betas": "0.9"}, "optimizer.betas: expected a list of 2, each entry a number of at least 0 and l"),
        ({"optimizer.betas": "0.9,1"}, "optimizer.betas: expected a list of 2"),
        (
            {"objective.preset": "magic"},
            "objective.preset: expected one of mover, mover-paper, mover-sets, mover-pool, mov",
        ),
        ({"objective.preset": "gramm"}, "got 'gramm'; did you mean gram?"),
        ({"data.missing": "dorp"}, "data.missing: expected one of drop, mask, got 'dorp'; did you mean drop?"),
        ({"objective.transport.epsilon": "0"}, "objective.transport.epsilon: expected a number of more than 0, got"),
        ({"objective.transport.tol": "-1"}, "objective.transport.tol: expected a number of at least 0, got '-1'."),
        ({"objective.learn_temperature": "maybe"}, "objective.learn_temperature: expected true or false, got 'maybe'"),
        ({"modalities": "text,smell"}, "modalities: 'smell' is none of text, video, audio, and there is no section"),
        ({"modalities": "text"}, "modalities: at least two different ones"),
        ({"modalities": "video,audio"}, "objective.anchor: 'text' is not among modalities"),
        ({"name": "a/b"}, "name: expected a text of letters, digits, '.', '_' and '-', got 'a/b'."),
    ],
)
def test_wrong_overrides(overrides: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config("demo", overrides)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "pydantic" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train:\n  steps: -3\n", "train.steps: expected an integer of at least 1, got -3."),
        ("train:\n  steps: yes\n", "train.steps: expected an integer of at least 1, got true."),
        ("train:\n  stepz: 3\n", "train.stepz: there is no such setting; did you mean train.steps?"),
        ("trian:\n  steps: 3\n", "trian: there is no such setting"),
        ("train: 3\n", "train: expected a section of 'key: value' lines, got 3."),
        ("train:\n  - steps\n", "train: expected a section of 'key: value' lines, got ['steps']."),
        ("- a\n- b\n", "expected 'key: value' lines at the top, got ['a', 'b']."),
        ("train:\n  steps: 3\n  steps: 4\n", "line 3: not valid YAML: the key 'steps' is given twice."),
        ("train: [1\n", "not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("train:\n  steps: null\n", "train.steps: expected an integer of at least 1, got nothing."),
        ("5: 3\n", "5: there is no such setting"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        load_config(path)
    assert sentence in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


NAMED = {"modalities": "text,depth", "model.others.depth.kind": "features", "model.others.depth.input_size": "8"}


def test_modalities_of_other_names(tmp_path: Path) -> None:
    config = load_config("demo", {**NAMED, "model.others.photo.kind": "image", "model.others.depth.length": "none"})
    depth = config.model.others["depth"]
    assert (depth.kind, depth.input_size, depth.length, depth.layers) == ("features", 8, None, 0)
    assert config.model.others["photo"].layers == 12 and config.modalities == ("text", "depth")
    path = tmp_path / "config.yaml"
    save_config(config, path)
    assert load_config(path) == config
    assert load_config(path, {"model.others.photo.layers": "2"}).model.others["photo"].layers == 2
    wider = load_config(path, {"model.others.depth.input_size": 9})
    assert differences(config, wider) == {"model.others.depth.input_size": (8, 9)}
    gone = differences(load_config("demo", NAMED), config)
    assert gone["model.others.photo.layers"] == (None, 12) and "model.others.depth.layers" not in gone
    assert values_of(config)["model.others.depth.input_size"] == 8
    assert "model.others.NAME.input_size" not in values_of(config)
    path.write_text("model:\n  others:\n")
    assert load_config(path) == Config()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model.others.depth.kind": "sound"},
            "model.others.depth.kind: expected one of image, features, got 'sound'.",
        ),
        ({"model.others.depth.kind": None}, "model.others.depth.kind: expected one of image, features, got nothing."),
        ({"model.others.depth.input_size": None}, "depth.input_size: expected an integer of at least 2, got nothing."),
        ({"model.others.depth.input_size": "1"}, "depth.input_size: expected an integer of at least 2, got '1'."),
        (
            {"model.others.depth.patch_size": "8"},
            "patch_size: there is no such setting with kind features, only with",
        ),
        (
            {"model.others.depth.checkpoint": "a"},
            "checkpoint: there is no such setting with kind features, only with",
        ),
        (
            {"model.others.depth.kind": "image"},
            "input_size: there is no such setting with kind image, only with kind f",
        ),
        (
            {"model.others.depth.layers": "-1"},
            "model.others.depth.layers: expected an integer of at least 0, got '-1'.",
        ),
        (
            {"model.others.depth.lenght": "3"},
            "depth.lenght: there is no such setting; did you mean model.others.depth.",
        ),
        ({"model.others.depth": "image"}, "but a section of that name; did you mean model.others.depth.kind?"),
        ({"model.others": "image"}, "but a section of that name; did you mean model.others.NAME.kind?"),
        ({"model.others.depth.kind.x": "image"}, "model.others.depth.kind.x: there is no such setting."),
        ({"model.others.Photo.kind": "image"}, "model.others.Photo: expected a name of a-z, 0-9 and _ that begins"),
        ({"model.others.text.kind": "image"}, "model.others.text: text has a section of its own, model.text."),
        ({"model.others.labels.kind": "image"}, "model.others.labels: this name means something else in a file"),
        ({"model.others.a_present.kind": "image"}, "model.others.a_present: this name means something else in a file"),
        (
            {"modalities": "text,depth,smell"},
            "'smell' is none of text, video, audio, and there is no section model.oth",
        ),
        ({"modalities": "text,video"}, None),
        ({"objective.anchor": "depth"}, None),
    ],
)
def test_wrong_settings_of_other_modalities(changes: dict[str, str | None], sentence: str | None) -> None:
    overrides = {name: value for name, value in {**NAMED, **changes}.items() if value is not None}
    if sentence is None:
        load_config("demo", overrides)
        return
    with pytest.raises(UserError) as raised:
        load_config("demo", overrides)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value) and str(raised.value).count(". ") <= 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("depth: 3", "model.others.depth: expected a section of 'key: value' lines, got 3."),
        ("depth:", "model.others.depth: expected a section of 'key: value' lines, got nothing."),
        ("depth: {}", "model.others.depth.kind: expected one of image, features, got nothing."),
        ("depth: {kind: [image]}", "model.others.depth.kind: expected one of image, features, got ['image']."),
        (
            "depth: {kind: image, layers: yes}",
            "model.others.depth.layers: expected an integer of at least 1, got true.",
        ),
        ("depth: {kind: image, layers: 0}", "model.others.depth.layers: expected an integer of at least 1, got 0."),
        ("5: {kind: image}", "model.others.5: expected a name"),
    ],
)
def test_wrong_files_of_other_modalities(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(f"model:\n  others:\n    {text}\n")
    with pytest.raises(UserError) as raised:
        load_config(path)
    assert sentence in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no configuration 'dmeo'.*shipped name \(.*demo.*\)"):
        load_config("dmeo")
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a YAML text file"):
        load_config(path)


def test_every_setting_is_explained_and_its_default_is_allowed() -> None:
    def value(tree: Any, path: str) -> Any:
        for name in path.split("."):
            tree = tree[name]
        return tree

    tree = yaml.safe_load(yaml.safe_dump(Config().model_dump(mode="json")))
    for leaf in leaves(Config):
        assert leaf.info.description, leaf.path
        assert "typing" not in leaf.allowed
        assert "class" not in leaf.allowed
        assert leaf.placeholder != "VALUE"
        if not leaf.kinds:
            assert (value(tree, leaf.path) is None) <= leaf.optional
