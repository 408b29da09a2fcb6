"""The embeddings file: round trip, and every way in which it can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.embeddings_file import load_embeddings, save_embeddings


def arrays(**changed: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    entries = {
        "ids": np.array(["a", "b", "c"]),
        "text": random.normal(size=(5, 4)).astype(np.float32),
        "text_owner": np.array([0, 0, 1, 2, 2]),
        "video": random.normal(size=(3, 4)).astype(np.float32),
        "video_present": np.array([True, False, True]),
        "audio": random.normal(size=(3, 4)).astype(np.float32),
    }
    entries.update(changed)
    return {name: value for name, value in entries.items() if value is not None}


def write(path: Path, **changed: Any) -> Path:
    np.savez(path, **arrays(**changed))
    return path


def test_round_trip(tmp_path: Path) -> None:
    given = arrays()
    present = {m: np.array([True, m != "video", True]) for m in ("text", "video", "audio")}
    vectors = {m: given[m] for m in ("text", "video", "audio")}
    path = tmp_path / "below" / "e.npz"
    save_embeddings(Embeddings(["a", "b", "c"], vectors, given["text_owner"], present), path)
    back = load_embeddings(path)
    assert back.ids == ["a", "b", "c"]
    assert back.modalities == ("text", "video", "audio")
    assert back.missing("video") == ["b"]
    for m in vectors:
        assert np.array_equal(back.vectors[m], vectors[m])
        assert np.array_equal(back.present[m], present[m])
    assert back.text_owner.tolist() == [0, 0, 1, 2, 2]
    assert [p.name for p in path.parent.iterdir()] == ["e.npz"]


def test_any_name_is_a_modality(tmp_path: Path) -> None:
    rows, flags = np.ones((3, 4), np.float16), np.array([True, True, False])
    path = write(tmp_path / "e.npz", depth=rows, depth_present=flags, labels=np.array(["x", "y", "z"]), a=rows)
    got = load_embeddings(path)
    assert got.modalities == ("text", "video", "audio", "depth", "a")
    assert got.missing("depth") == ["c"] and got.missing("a") == []
    save_embeddings(got, tmp_path / "again.npz")
    assert load_embeddings(tmp_path / "again.npz").modalities == got.modalities
    bare = dict.fromkeys(("text", "text_owner", "video", "video_present"))
    assert load_embeddings(write(tmp_path / "b.npz", **bare, image=rows)).modalities == ("audio", "image")


def test_one_caption_per_clip_needs_no_owner(tmp_path: Path) -> None:
    path = write(tmp_path / "e.npz", text=np.ones((3, 4)), text_owner=None)
    assert load_embeddings(path).text_owner.tolist() == [0, 1, 2]


def test_a_clip_without_caption_has_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "e.npz", text_owner=np.array([0, 0, 1, 1, 1]))
    assert load_embeddings(path).missing("text") == ["c"]


def test_numbers_as_ids(tmp_path: Path) -> None:
    assert load_embeddings(write(tmp_path / "e.npz", ids=np.array([5, 6, 7]))).ids == ["5", "6", "7"]


def test_unusable_rows_are_named_and_absent_ones_are_not(tmp_path: Path) -> None:
    video = np.ones((3, 4), dtype=np.float32)
    video[0, 1] = np.nan
    video[1] = np.nan  # not present
    text = np.ones((5, 4), dtype=np.float32)
    text[3] = 0
    got = load_embeddings(write(tmp_path / "e.npz", video=video, text=text))
    assert got.unusable("video") == ["a"]
    assert got.unusable("text") == ["c"]
    assert got.unusable("audio") == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"ids": None}, "there are no 'ids'"),
        ({"ids": np.array([["a"]])}, "'ids' has the shape"),
        ({"ids": np.array(["a", "b", "a"])}, "must be unique; of 3 rows 2 share 1 names, first 'a' \\(2 rows\\)"),
        ({"video": None, "audio": None, "video_present": None}, "at least two of the arrays"),
        ({"video": None}, "there is 'video_present', but no array 'video'"),
        ({"Image": np.ones((3, 4))}, "'Image' is no name of a modality"),
        ({"image": np.ones((2, 4))}, r"'image' has the shape \(2, 4\); expected \(3, d\)"),
        ({"image": np.ones((3, 5))}, "one width"),
        ({"image": np.ones((3, 4)), "image_present": np.ones(4, dtype=bool)}, "'image_present' is bool"),
        ({"video": np.ones((2, 4))}, r"'video' has the shape \(2, 4\); expected \(3, d\)"),
        ({"video": np.ones(3)}, "'video' has the shape"),
        ({"audio": np.ones((3, 5))}, "one width"),
        ({"audio": np.ones((3, 4), dtype=int)}, "expected floating point"),
        ({"text_owner": None}, "need the array 'text_owner'"),
        ({"text_owner": np.array([0, 1, 2])}, "expected integers"),
        ({"text_owner": np.array([0.0, 0, 1, 2, 2])}, "expected integers"),
        ({"text_owner": np.array([0, 0, 1, 2, 3])}, r"1 of 5 captions belong to no clip.*must lie in 0\.\.2, and that of caption 4 is 3"),
        ({"text_owner": np.array([0, -1, 1, 2, 2])}, "must lie in"),
        ({"video_present": np.array([1, 0, 1])}, "expected bool"),
        ({"ids": np.array(["a", "b", None], dtype=object)}, "not a whole .npz file of plain arrays"),
    ],
)
def test_wrong_arrays(tmp_path: Path, changed: dict[str, Any], sentence: str) -> None:
    path = write(tmp_path / "e.npz", **changed)
    with pytest.raises(UserError, match=sentence) as raised:
        load_embeddings(path)
    assert str(path) in str(raised.value)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no embeddings file"):
        load_embeddings(tmp_path / "absent.npz")
    whole = write(tmp_path / "e.npz").read_bytes()
    for name, content in {"text": b"hello", "empty": b"", "cut": whole[: len(whole) // 2]}.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a whole .npz file"):
            load_embeddings(path)
    single = tmp_path / "single.npz"
    with open(single, "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(UserError, match="not a whole .npz file"):
        load_embeddings(single)
