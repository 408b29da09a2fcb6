"""What a report is made of: files of a run that are there, old, of something else, damaged, or gone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.reports import embeddings_of, log_of, plans_of
from cases.untrained import untrained
from mover.configs import load_config, save_config
from mover.data.manifest import read_manifest
from mover.data.synthetic import generate
from mover.errors import UserError
from mover.evaluate.embeddings_file import load_embeddings, save_embeddings
from mover.evaluate.run import evaluate_checkpoint
from mover.report.material import Material, of_file, of_run
from mover.report.page import build_report
from mover.train.logging import RunLog
from mover.train.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("plain_charts")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of an untrained model, evaluated; beside it its manifest of six test clips."""
    folder = tmp_path_factory.mktemp("made")
    manifest = generate(folder / "data", train=4, validation=1, test=6, progress=False)
    run = RunFolder(folder / "run")
    untrained(run.best, manifest)
    save_config(load_config(run.best / "config.yaml"), run.config)
    with RunLog(run.log) as log:
        for line in log_of(4):
            log.write(**line)
    for step, plans in plans_of((2, 4)).items():
        run.write_plans(step, {pair: plan / 8 for pair, plan in plans.items()})
    evaluate_checkpoint(run.best)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of that run, to damage."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def told(make: Callable[..., Material], *sources: Any, **options: Any) -> tuple[Material, list[str]]:
    said: list[str] = []
    return make(*sources, say=said.append, **options), said


def test_an_evaluated_run(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    material, said = told(of_run, run)
    assert said == [f"embeddings from {run / 'embeddings.npz'}"]
    assert material.notes == {}
    assert (material.name, len(material.log), list(material.plans)) == ("demo", 7, [2, 4])
    metrics = json.loads((run / "metrics.json").read_text())
    assert material.meta.items() >= metrics.pop("_meta").items() and material.metrics == metrics
    assert set(material.clips) == set(material.embeddings.ids)
    np.testing.assert_allclose(material.plans[4]["text-video"], np.eye(8))
    page = build_report(material, queries=2)
    assert "95 % interval" in page and "computed anew" not in page
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_run_that_was_not_evaluated_is_embedded(run: Path) -> None:
    (run / "metrics.json").unlink()
    (run / "embeddings.npz").unlink()
    material, said = told(of_run, run)
    assert any("embedding 6 clips" in line for line in said)
    assert (run / "embeddings.npz").exists() and material.metrics == {}
    page = build_report(material, queries=0)
    assert "95 % interval" in page and "No queries were asked for" in page
    other, _ = told(of_run, run, split="val")
    assert (run / "embeddings-val.npz").exists() and len(other.embeddings.ids) == 1


def test_embeddings_of_another_checkpoint_are_made_again(run: Path, made: Path) -> None:
    kept = load_embeddings(run / "embeddings.npz")
    untrained(run / "checkpoints" / "best", made / "data" / "manifest.jsonl", seed=1, model__embed_dim=8)
    material, said = told(of_run, run)
    assert "is of another checkpoint" in said[0] and any("embedding 6 clips" in line for line in said)
    assert material.embeddings.vectors["video"].shape[1] == 8 != kept.vectors["video"].shape[1]
    page = build_report(material, queries=0)  # metrics.json is of the old ones
    assert "The metrics.json there is of other embeddings: the numbers were computed anew." in page


def test_a_run_without_its_checkpoint_or_manifest_is_told_of_all_the_same(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    config = load_config(run / "config.yaml")
    gone = config.model_copy(update={"data": config.data.model_copy(update={"manifest": tmp_path / "gone.jsonl"})})
    save_config(gone, run / "config.yaml")
    material = of_run(run)
    assert "clips go by their ids" in material.notes["gallery"] and "gone.jsonl" in material.notes["gallery"]
    assert "There is no manifest" in build_report(material, queries=2)
    found = of_run(run, manifest=config.data.manifest)
    assert found.clips and not found.notes


def test_metrics_of_an_earlier_version(run: Path) -> None:
    path = run / "metrics.json"
    metrics = json.loads(path.read_text())
    meta = metrics.pop("_meta")
    kept = ("R@1", "R@5", "R@10", "MdR", "MnR", "N", "clips")
    plain = {name: {key: row[key] for key in kept} for name, row in metrics.items() if " " not in name}
    for key in ("unusable_policy", "unusable_rows", "intervals"):
        meta.pop(key, None)
    path.write_text(json.dumps({**plain, "_meta": meta}))
    material = of_run(run)
    assert material.notes["metrics"] == "metrics.json holds no intervals: evaluate again to have them."
    page = build_report(material, queries=0)
    assert "holds no intervals" in page and "95 % interval" not in page and "MRR" not in page


def test_metrics_of_other_clips_are_not_shown(run: Path) -> None:
    path = run / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["_meta"]["ids_sha256"] = "of others"
    path.write_text(json.dumps(metrics))
    material = of_run(run)
    assert material.metrics == {} and "of other clips" in material.notes["metrics"]
    assert material.meta["ids_sha256"] != "of others"


NO_METRICS = (
    "", "[]", "{}", "\x00", '{"_meta": 3}', '{"_meta": {}, "T2V": 1}', '{"_meta": {}, "T2V": {"R@1": "x", "N": 1}}'
)  # fmt: skip


@pytest.mark.parametrize("content", NO_METRICS)
def test_damaged_metrics(run: Path, content: str) -> None:
    (run / "metrics.json").write_text(content)
    with pytest.raises(
        UserError, match=r"metrics.json is no metrics.json as mover evaluate writes it \(.*evaluate again"
    ):
        of_run(run)


def test_damaged_files(run: Path) -> None:
    (run / "plans" / "step-000004.npz").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"step-000004.npz is not a whole file of plans.*remove it"):
        of_run(run)
    shutil.rmtree(run / "plans")
    with open(run / "log.jsonl", "a") as log:
        log.write('{"kind": "train", "st')  # as a crash leaves it
    assert len(of_run(run).log) == 7
    assert "kept no transport plans" in of_run(run).notes["plans"]
    (run / "log.jsonl").unlink()
    assert "no log.jsonl" in of_run(run).notes["training"]
    (run / "embeddings.npz").write_bytes(b"cut")
    with pytest.raises(UserError, match="embeddings.npz"):
        of_run(run)


def test_folders_that_are_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run: expected a folder with config.yaml"):
        of_run(tmp_path)
    with pytest.raises(UserError, match="is a checkpoint: give the folder of its run, .*run"):
        of_run(run / "checkpoints" / "best")
    (run / "config.yaml").write_text("data: [")
    with pytest.raises(UserError, match="config.yaml"):
        of_run(run)


def test_a_file_alone(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "system.npz"
    save_embeddings(embeddings_of(6), path)
    material = of_file(path)
    assert (material.name, material.log, material.plans, material.clips) == ("system", [], {}, {})
    assert set(material.notes) == {"training", "plans", "gallery"}
    assert material.meta["embeddings"] == str(path)
    manifest = made / "data" / "manifest.jsonl"
    strange = of_file(path, manifest=manifest)
    assert "6 of 6 ids are not in" in strange.notes["gallery"]
    known = of_file(made / "run" / "embeddings.npz", manifest=manifest)
    assert len(known.clips) == len(read_manifest(manifest)) and "gallery" not in known.notes


def test_policies_for_a_file(tmp_path: Path) -> None:
    path = tmp_path / "system.npz"
    embeddings = embeddings_of(6)
    embeddings.present["audio"][2] = False
    save_embeddings(embeddings, path)
    with pytest.raises(UserError, match="1 of 6 clips have no audio, first 'clip2': .*--missing drop.*--missing mask"):
        of_file(path)
    assert len(of_file(path, missing="drop").embeddings.ids) == 5
    page = build_report(of_file(path, missing="mask"), queries=4)
    assert "6 of 6 listed (1 without audio)" in page and "policy mask" in page
    embeddings.vectors["video"][0] = np.nan
    save_embeddings(embeddings, path)
    with pytest.raises(UserError, match="system.npz: .*video"):
        of_file(path, missing="mask")
    page = build_report(of_file(path, missing="mask", unusable="last"), queries=4)
    assert "1 of video, policy last" in page
    with pytest.raises(UserError, match="has text.*leave --anchor out"):
        of_file(path, missing="mask", unusable="last", anchor="video")
    embeddings.present["video"][:] = False
    save_embeddings(embeddings, path)
    with pytest.raises(UserError, match="None of 6 clips has all of text, video, audio"):
        of_file(path, missing="drop")


def test_two_modalities_and_no_text(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(8, 4)).astype(np.float32)
    np.savez(tmp_path / "e.npz", ids=np.arange(8), depth=rows, notes=rows + 0.1)
    page = build_report(of_file(tmp_path / "e.npz"), queries=4)
    assert "Asked with depth, the model puts the right notes first for" in page
    assert "Cosines of matched and unmatched groups" in page and "Gain of asking" not in page
    np.savez(tmp_path / "three.npz", ids=np.arange(8), depth=rows, notes=rows + 0.1, smell=rows - 0.1)
    page = build_report(of_file(tmp_path / "three.npz", anchor="smell"), queries=4)
    assert "Asked with smell, the model puts the right depth and notes first for" in page


def test_one_clip(tmp_path: Path) -> None:
    save_embeddings(embeddings_of(1), tmp_path / "one.npz")
    page = build_report(of_file(tmp_path / "one.npz"), queries=4)
    assert "There are no groups to compare" in page
