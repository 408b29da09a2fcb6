"""From a checkpoint to metrics.json on real clips, and the refusals on the way."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mover.config import Config
from mover.configs import load_config, save_config
from mover.data.manifest import Clip, read_manifest, write_manifest
from mover.data.synthetic import generate
from mover.data.tokenizer import Tokenizer
from mover.errors import UserError
from mover.evaluate.embed import EvaluationSet, embed
from mover.evaluate.embeddings_file import load_embeddings
from mover.evaluate.run import evaluate_checkpoint, evaluate_embeddings
from mover.models.model import MoverModel
from mover.train.checkpoint import CONFIG, MODEL, save_checkpoint

NAMES = ["T2V", "V2T", "T2A", "A2T", "V2A", "A2V", "T2VA", "VA2T"]
SMALL = {"layers": 1, "hidden_size": 16, "heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 4 training, 1 validation and 6 test clips; the test clips have one to three captions."""
    manifest = generate(tmp_path_factory.mktemp("clips") / "data", train=4, validation=1, test=6, progress=False)
    clips = read_manifest(manifest)
    many = [
        replace(clip, captions=clip.captions + ("another view of it", "and one more")[: i % 3])
        for i, clip in enumerate(clips)
    ]
    write_manifest(manifest, many)
    return manifest


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model as `runs/small/checkpoints/best`."""
    settings: dict[str, Any] = {"data.manifest": str(data), "data.image_size": 32, "data.frames": 2}
    settings |= {"model.embed_dim": 16, "model.audio.embed_dim": 16, "data.audio_seconds": 1.0}
    settings |= {f"model.{m}.{name}": value for m in ("text", "video", "audio") for name, value in SMALL.items()}
    config = load_config("demo", settings)
    tokenizer = Tokenizer.for_data(config.data)
    torch.manual_seed(0)
    model = MoverModel(config.model, config.data, config.modalities, tokenizer.vocab_size)
    folder = tmp_path_factory.mktemp("runs") / "small" / "checkpoints" / "best"
    save_checkpoint(folder, model=model, objective=nn.Linear(1, 1), state={}, config=config, tokenizer=tokenizer)
    return folder


def test_metrics_of_a_checkpoint_and_of_its_embeddings_agree(checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    kept = tmp_path / "e.npz"
    result = evaluate_checkpoint(checkpoint, embeddings_out=kept, say=said.append)
    assert result.path == checkpoint.parents[1] / "metrics.json"
    written = json.loads(result.path.read_text())
    meta = written.pop("_meta")
    assert [name for name in written if " " not in name] == NAMES
    assert list(written)[8:] == ["T2VA span", "VA2T span", "T2VA cosine", "VA2T cosine"]
    assert written == result.metrics
    assert (written["T2V"]["N"], written["V2T"]["N"]) == (meta["captions"], 6)
    assert meta["captions"] > 6
    assert meta["left_out"] == {}
    assert "6 clips" in said[0]

    again = evaluate_embeddings(kept)
    assert again.metrics == result.metrics
    assert again.path == tmp_path / "e.metrics.json"
    assert again.meta["ids_sha256"] == meta["ids_sha256"]


def test_another_split_does_not_overwrite_the_result_of_the_test_split(checkpoint: Path) -> None:
    said: list[str] = []
    result = evaluate_checkpoint(checkpoint, split="val", say=said.append)
    assert result.path.name == "metrics-val.json"
    assert result.metrics["V2A"] == {
        "R@1": 100, "R@5": 100, "R@10": 100, "R@50": 100, "MdR": 1, "MnR": 1, "MRR": 100, "mAP@10": 100, "N": 1,
        "clips": 1, "score": "cosine",
    }  # fmt: skip
    assert (result.path.parent / "embeddings-val.npz").is_file()
    assert said[-1] == "there is one clip: every rank is the first, whatever the embeddings"


def test_the_batch_size_does_not_matter(checkpoint: Path, tmp_path: Path) -> None:
    whole, single = tmp_path / "whole.npz", tmp_path / "single.npz"
    evaluate_checkpoint(checkpoint, out=tmp_path / "m.json", embeddings_out=whole)
    evaluate_checkpoint(checkpoint, out=tmp_path / "m.json", embeddings_out=single, batch_size=1)
    one, other = load_embeddings(whole), load_embeddings(single)
    assert one.text_owner.tolist() == other.text_owner.tolist()
    for m in one.modalities:
        assert np.allclose(one.vectors[m], other.vectors[m], atol=1e-5)
        assert np.allclose(np.linalg.norm(one.vectors[m], axis=1), 1, atol=1e-5)


def damaged(data: Path, folder: Path) -> Path:
    """A manifest with the first test clip's sound gone and the second one's video undecodable."""
    clips: list[Clip] = []
    seen = 0
    for clip in read_manifest(data):
        if clip.split == "test":
            seen += 1
            if seen == 1:
                clip = replace(clip, audio=None, status={"audio": "no_audio_track"})
            elif seen == 2:
                broken = folder / "broken.mp4"
                broken.write_bytes(b"not a video")
                clip = replace(clip, video=broken)
        clips.append(clip)
    write_manifest(folder / "manifest.jsonl", clips)
    return folder / "manifest.jsonl"


def test_clips_without_a_modality(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    manifest = damaged(data, tmp_path)
    out = tmp_path / "m.json"
    with pytest.raises(UserError, match="audio"):
        evaluate_checkpoint(checkpoint, manifest=manifest, out=out)
    assert not out.exists()

    kept = tmp_path / "e.npz"
    results = {}
    for missing, expected in {"mask": (5, 5, 4, 6), "drop": (4, 4, 4, 4)}.items():
        result = evaluate_checkpoint(checkpoint, manifest=manifest, missing=missing, out=out, embeddings_out=kept)
        counts = {name: row["clips"] for name, row in result.metrics.items()}
        assert (counts["V2T"], counts["A2T"], counts["V2A"], counts["VA2T"]) == expected
        assert {m: list(reasons) for m, reasons in result.meta["left_out"].items()}.keys() == {"video", "audio"}
        assert result.meta["without"] == {"text": 0, "video": 1, "audio": 1}
        assert (result.meta["listed"], result.meta["clips"]) == (6, 6 if missing == "mask" else 4)
        assert result.meta["joint_score"] == ("span" if missing == "mask" else "volume")
        results[missing] = result

    with pytest.raises(UserError, match="1 of 6 clips have no video.*--missing drop.*--missing mask"):
        evaluate_embeddings(kept)
    for missing, result in results.items():
        assert evaluate_embeddings(kept, missing=missing).metrics == result.metrics


def test_a_modality_that_no_clip_has(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    manifest, out = tmp_path / "manifest.jsonl", tmp_path / "m.json"
    write_manifest(manifest, [replace(clip, audio=None) for clip in read_manifest(data)])
    said: list[str] = []
    result = evaluate_checkpoint(checkpoint, manifest=manifest, missing="mask", out=out, say=said.append)
    assert list(result.metrics) == ["T2V", "V2T"]
    assert any(line.startswith("no clip has audio") for line in said)
    assert result.meta["without"] == {"text": 0, "video": 0, "audio": 6} and result.meta["joint_score"] is None
    with pytest.raises(UserError, match="None of 6 clips can be used.*audio missing"):
        evaluate_checkpoint(checkpoint, manifest=manifest, missing="drop", out=out)


def test_the_anchor_of_a_file_without_text(tmp_path: Path) -> None:
    random, path = np.random.default_rng(0), tmp_path / "e.npz"
    arrays = {m: random.normal(size=(5, 4)).astype(np.float32) for m in ("audio", "depth", "notes")}
    np.savez(path, ids=np.arange(5), **arrays)
    assert list(evaluate_embeddings(path).metrics)[6:8] == ["A2depth+notes", "depth+notes2A"]
    assert list(evaluate_embeddings(path, anchor="notes").metrics)[6:8] == ["notes2A+depth", "A+depth2notes"]
    with pytest.raises(UserError, match="anchor 'smell' is not among the modalities"):
        evaluate_embeddings(path, anchor="smell")
    np.savez(path, ids=np.arange(5), text=arrays["audio"], **arrays)
    with pytest.raises(UserError, match="has text.*leave --anchor out"):
        evaluate_embeddings(path, anchor="notes")


def test_embedding_leaves_the_model_as_it_was(checkpoint: Path, data: Path) -> None:
    config = load_config(checkpoint / CONFIG)
    tokenizer = Tokenizer.for_data(config.data)
    model = MoverModel(config.model, config.data, config.modalities, tokenizer.vocab_size).train()
    clips = [clip for clip in read_manifest(data) if clip.split == "test"]
    evaluation = EvaluationSet(clips, config.data, config.modalities, tokenizer, missing="fail")
    state = torch.get_rng_state()
    first = embed(model, evaluation, batch_size=4, device=torch.device("cpu"))
    second = embed(model, evaluation, batch_size=4, device=torch.device("cpu"))
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(first.vectors[m], second.vectors[m]) for m in first.modalities)


def test_every_row_belongs_to_its_clip_and_caption(checkpoint: Path, data: Path) -> None:
    config = load_config(checkpoint / CONFIG)
    tokenizer = Tokenizer.for_data(config.data)
    torch.manual_seed(1)
    model = MoverModel(config.model, config.data, config.modalities, tokenizer.vocab_size).eval()
    clips = [clip for clip in read_manifest(data) if clip.split == "test"]
    evaluation = EvaluationSet(clips, config.data, config.modalities, tokenizer, missing="fail")
    got = embed(model, evaluation, batch_size=4, device=torch.device("cpu"))
    assert got.ids == [clip.id for clip in clips]
    assert got.text_owner.tolist() == [i for i, clip in enumerate(clips) for _ in clip.captions]
    with torch.no_grad():
        for row, caption in enumerate(caption for clip in clips for caption in clip.captions):
            input_ids, attention_mask = tokenizer.encode([caption])
            alone = model.encode("text", {"input_ids": input_ids, "attention_mask": attention_mask})[0]
            assert np.allclose(got.vectors["text"][row], alone.numpy(), atol=1e-5)
        for modality, dataset in evaluation.datasets.items():
            if modality == "text":
                continue
            for row in range(len(clips)):
                sample = dataset.sample(row)
                assert sample is not None
                alone = model.encode(modality, dataset.collate([sample])[modality])[0]
                assert np.allclose(got.vectors[modality][row], alone.numpy(), atol=1e-5)


def test_a_checkpoint_of_another_model(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "best"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = load_config(folder / CONFIG)
    wider = config.model.model_copy(update={"embed_dim": 24})
    save_config(Config(**{**dict(config), "model": wider}), folder / CONFIG)
    with pytest.raises(UserError, match="holds another model"):
        evaluate_checkpoint(folder)
    (folder / CONFIG).write_bytes((checkpoint / CONFIG).read_bytes())
    (folder / MODEL).write_bytes((checkpoint / MODEL).read_bytes()[:-100])
    with pytest.raises(UserError, match="cut short"):
        evaluate_checkpoint(folder)
    assert not (tmp_path / "metrics.json").exists()


def test_embeddings_are_kept_used_again_and_replaced_when_out_of_date(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints" / "best"
    folder.mkdir(parents=True)
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    said: list[str] = []
    first = evaluate_checkpoint(folder, say=said.append)
    kept = tmp_path / "run" / "embeddings.npz"
    before = kept.stat().st_mtime_ns
    assert first.meta["embeddings"] == str(kept) and any("embedding 6 clips" in line for line in said)
    said.clear()
    again = evaluate_checkpoint(folder, say=said.append)
    assert again.metrics == first.metrics and kept.stat().st_mtime_ns == before
    assert not any("embedding" in line for line in said)

    config = load_config(folder / CONFIG)
    torch.manual_seed(7)
    model = MoverModel(config.model, config.data, config.modalities, Tokenizer.for_data(config.data).vocab_size)
    save_checkpoint(folder, model=model, objective=nn.Linear(1, 1), state={}, config=config,
                    tokenizer=Tokenizer.for_data(config.data))  # fmt: skip
    other = evaluate_checkpoint(folder, say=said.append)
    assert any(line.startswith(f"{kept} was made of other weights") for line in said)
    rows = [load_embeddings(kept).vectors["video"], first.embeddings.vectors["video"]]
    assert not np.allclose(*rows) and np.array_equal(rows[0], other.embeddings.vectors["video"])

    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, ids=np.arange(2), video=np.eye(2), audio=np.eye(2))
    with pytest.raises(UserError, match="not a file that mover embed wrote"):
        evaluate_checkpoint(folder, embeddings_out=foreign)
    assert np.load(foreign)["video"].shape == (2, 2)


def arrays(clips: int = 6, d: int = 4) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    rows = {m: random.normal(size=(clips, d)) for m in ("text", "video", "audio")}
    unit = {m: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for m, v in rows.items()}
    return {"ids": np.array([f"c{i}" for i in range(clips)]), **unit}


def test_rows_that_cannot_be_used_go_by_a_named_policy(tmp_path: Path) -> None:
    path, given = tmp_path / "e.npz", arrays()
    given["video"][2], given["text"][4, 1] = 0, np.nan
    np.savez(path, **given)
    with pytest.raises(UserError, match=r"e\.npz: .*1 of 6 text rows, 1 of 6 video rows"):
        evaluate_embeddings(path)
    said: list[str] = []
    last = evaluate_embeddings(path, unusable="last", say=said.append)
    assert said == [
        "1 clips have a text row that is zero or not finite and ranks last, first 'c4'",
        "1 clips have a video row that is zero or not finite and ranks last, first 'c2'",
    ]
    assert last.meta["unusable_policy"] == "last" and last.meta["unusable_rows"] == {"text": 1, "video": 1, "audio": 0}
    assert {row["clips"] for row in last.metrics.values()} == {6}
    standing = last.rankings[0].standing
    assert standing.better.tolist()[2] == standing.better.tolist()[4] == 5
    with pytest.raises(UserError, match="1 of 6 clips have no text"):
        evaluate_embeddings(path, unusable="missing")
    masked = evaluate_embeddings(path, unusable="missing", missing="mask")
    assert (masked.metrics["T2V"]["clips"], masked.metrics["V2A"]["clips"], masked.meta["clips"]) == (4, 5, 6)
    dropped = evaluate_embeddings(path, unusable="missing", missing="drop", say=said.append)
    assert {row["clips"] for row in dropped.metrics.values()} == {4} == {dropped.meta["clips"]}
    assert said[-1].endswith("and counts as not there, first 'c2'")


def test_what_a_reader_has_to_know_is_said(tmp_path: Path) -> None:
    path, given = tmp_path / "e.npz", arrays()
    plain = evaluate_embeddings_of(path, given)[0].metrics
    given["video"] *= np.arange(1, 7, dtype=np.float32)[:, None]
    result, said = evaluate_embeddings_of(path, given)
    assert said == ["5 of 6 video rows are not of length 1 (1 to 6): they are normalised"]
    assert result.metrics == plain
    given["audio_present"] = np.zeros(6, dtype=bool)
    result, said = evaluate_embeddings_of(path, given, missing="mask")
    assert said[-1] == "no clip has what T2A, A2T, V2A, A2V need: they are left out"
    assert [name for name in result.metrics if " " not in name] == ["T2V", "V2T", "T2VA", "VA2T"]
    with pytest.raises(UserError, match="None of 6 clips has all of text, video, audio"):
        evaluate_embeddings(path, missing="drop")
    _, said = evaluate_embeddings_of(path, arrays(clips=1))
    assert said == ["there is one clip: every rank is the first, whatever the embeddings"]


def evaluate_embeddings_of(path: Path, given: dict[str, np.ndarray], **options: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    np.savez(path, **given)
    return evaluate_embeddings(path, say=said.append, **options), said


def test_dual_softmax_is_labelled(tmp_path: Path) -> None:
    result, _ = evaluate_embeddings_of(tmp_path / "e.npz", arrays(), dual_softmax=0.05)
    plain, _ = evaluate_embeddings_of(tmp_path / "e.npz", arrays())
    assert result.meta["dual_softmax"] == {"temperature": 0.05, "rows": "+dsl", "uses": "all queries at once"}
    assert [name for name in result.metrics if "+dsl" in name] == [f"{name} +dsl" for name in plain.metrics]
    assert {name: row for name, row in result.metrics.items() if "+dsl" not in name} == plain.metrics
    assert "dual_softmax" not in plain.meta


def test_a_file_tells_where_it_comes_from(checkpoint: Path, tmp_path: Path) -> None:
    kept = tmp_path / "e.npz"
    first = evaluate_checkpoint(checkpoint, out=tmp_path / "m.json", embeddings_out=kept)
    told = evaluate_embeddings(kept).meta["provenance"]
    assert told["checkpoint"] == str(checkpoint) and told["split"] == "test" and len(told["weights_sha256"]) == 64
    assert first.meta["intervals"]["resamples"] == 2000


def test_ranking_a_file_imports_no_model_and_no_media(tmp_path: Path) -> None:
    import subprocess
    import sys

    np.savez(tmp_path / "e.npz", **arrays())
    code = (
        "import sys; from mover.cli.main import main; assert main(['evaluate', sys.argv[1]]) == 0\n"
        "heavy = 'transformers tokenizers av sklearn matplotlib pyarrow mover.models mover.data'.split()\n"
        "found = [name for name in heavy if name in sys.modules]\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "e.npz")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
