"""Parquet files as others write them: types of lists, nulls, captions; and what cannot be read."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from mover.errors import UserError  # noqa: E402
from mover.evaluate.embeddings_file import load_embeddings, save_embeddings  # noqa: E402

VIDEO = [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]]
AUDIO = [[0.5, 0.5], [1.5, 0.0], [0.0, 1.0], [1.0, 1.0]]


def write(path: Path, chunk: int = 3, **columns: Any) -> Path:
    given = {"id": ["a", "b", "c", "d"], "video": VIDEO, "audio": AUDIO, **columns}
    table = pa.table({name: column for name, column in given.items() if column is not None})
    pq.write_table(table, path, row_group_size=chunk)
    return path


def test_null_is_not_present(tmp_path: Path) -> None:
    got = load_embeddings(write(tmp_path / "e.parquet", label=["x", None, "z", "x"]))
    assert got.ids == ["a", "b", "c", "d"] and got.modalities == ("video", "audio")
    assert got.missing("video") == ["b"] and got.missing("audio") == []
    assert got.vectors["video"].tolist() == [[1, 2], [0, 0], [3, 4], [5, 6]]
    assert got.vectors["audio"].tolist() == AUDIO
    assert got.labels == ("x", "", "z", "x")


@pytest.mark.parametrize("chunk", [1, 2, 4])
@pytest.mark.parametrize("number", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("form", [pa.list_, pa.large_list, lambda number: pa.list_(number, 2)])
def test_every_type_of_list(tmp_path: Path, form: Any, number: Any, chunk: int) -> None:
    video = pa.array([None if r is None else np.array(r, number.to_pandas_dtype()) for r in VIDEO], form(number))
    text = [[[1, 0], [0, 1]], [], [[2, 2]], None]
    rows = [None if c is None else [np.array(r, number.to_pandas_dtype()) for r in c] for c in text]
    captions = pa.array(rows, pa.list_(form(number)))
    got = load_embeddings(write(tmp_path / "e.parquet", chunk, video=video, text=captions))
    assert got.modalities == ("text", "video", "audio")
    assert got.vectors["video"].dtype == number.to_pandas_dtype()
    assert got.vectors["video"].tolist() == [[1, 2], [0, 0], [3, 4], [5, 6]] and got.missing("video") == ["b"]
    assert got.vectors["text"].tolist() == [[1, 0], [0, 1], [2, 2]] and got.text_owner.tolist() == [0, 0, 2]
    assert got.missing("text") == ["b", "d"]


def test_one_caption_per_clip(tmp_path: Path) -> None:
    got = load_embeddings(write(tmp_path / "e.parquet", text=[[1.0, 0.0], None, [0.0, 1.0], [1.0, 1.0]]))
    assert got.vectors["text"].tolist() == [[1, 0], [0, 1], [1, 1]] and got.text_owner.tolist() == [0, 2, 3]
    assert got.missing("text") == ["b"]


def test_names(tmp_path: Path) -> None:
    for ids in (
        [4, 5, 6, 7],
        pa.array(["4", "5", "6", "7"], pa.large_string()),
        pa.array(list("4567")).dictionary_encode(),
    ):
        assert load_embeddings(write(tmp_path / "e.parquet", id=ids)).ids == ["4", "5", "6", "7"]
    got = load_embeddings(write(tmp_path / "e.parquet", label=pa.array(["x", "y", "x", None]).dictionary_encode()))
    assert got.labels == ("x", "y", "x", "")


def test_a_modality_that_no_clip_has(tmp_path: Path) -> None:
    for depth in (pa.nulls(4), pa.nulls(4, pa.list_(pa.float32()))):
        got = load_embeddings(write(tmp_path / "e.parquet", depth=depth))
        assert got.missing("depth") == got.ids and got.vectors["depth"].shape == (4, 2)


def test_a_null_number_is_not_finite(tmp_path: Path) -> None:
    got = load_embeddings(write(tmp_path / "e.parquet", audio=[[0.5, None], *AUDIO[1:]]))
    assert got.unusable("audio") == ["a"]


def test_a_slice_of_a_table(tmp_path: Path) -> None:
    """Lists whose first one does not begin where their numbers do."""
    table = pa.table({"id": list("abcd"), "video": VIDEO, "audio": AUDIO, "text": [[r, r] for r in AUDIO]}).slice(1)
    pq.write_table(table, tmp_path / "e.parquet")
    got = load_embeddings(tmp_path / "e.parquet")
    assert got.ids == ["b", "c", "d"] and got.vectors["video"].tolist() == [[0, 0], [3, 4], [5, 6]]
    assert got.vectors["text"].tolist() == [r for r in AUDIO[1:] for _ in range(2)]


def test_captions_of_a_clip_without_text_are_left_out_when_written(tmp_path: Path) -> None:
    one = load_embeddings(write(tmp_path / "e.parquet", text=[[r, r] for r in AUDIO]))
    one.present["text"][1] = False
    save_embeddings(one, tmp_path / "f.parquet")
    got = load_embeddings(tmp_path / "f.parquet")
    assert got.missing("text") == ["b"] and got.text_owner.tolist() == [0, 0, 2, 2, 3, 3]
    assert got.vectors["text"].tolist() == [r for r in (AUDIO[0], *AUDIO[2:]) for _ in range(2)]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"id": None}, "there are no 'ids'"),
        ({"id": ["a", None, "c", None]}, "2 of 4 ids are null, first that of row 1"),
        ({"id": ["a", "b", "b", "b"]}, r"must be unique; of 4 rows 3 share 1 names, first 'b' \(3 rows\)"),
        ({"id": [1.0, 2.0, 3.0, 4.0]}, "the column 'id' is of the type double, expected strings or whole numbers"),
        ({"video": [[1.0], None, [1.0, 2.0], None]}, "the column 'video' has lists of 1 and of 2 numbers"),
        ({"video": [[1.0], None, [1.0], [1.0, 2.0]]}, "the column 'video' has lists of 1 and of 2 numbers"),
        ({"video": [[], None, [], []]}, "the column 'video' is of the type list"),
        ({"video": [[1.0]] * 4}, "one width to be compared; found video 1, audio 2"),
        ({"video": [[1, 2]] * 4}, "the column 'video' is of the type list.*and holds list<float>"),
        ({"caption": ["a dog"] * 4}, "the column 'caption' is of the type string; every column but id and label"),
        ({"text": ["a dog"] * 4}, "the column 'text' is of the type string.*list<list<float>>"),
        ({"text": [[[1.0, 2.0], None]] * 4}, "captions of rows 0.. in the column 'text' are null"),
        ({"text": [[[1.0, 2.0], [1.0]]] * 4}, "the column 'text' has lists of 1 and of 2 numbers"),
        ({"text": pa.nulls(4)}, "the column 'text' is null in every row: leave it out"),
        ({"text": pa.array([[], [], None, []], pa.list_(pa.list_(pa.float32())))}, "'text' has no caption in any row"),
        ({"video": None}, "at least two of the arrays"),
    ],
)
def test_wrong_columns(tmp_path: Path, columns: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        load_embeddings(write(tmp_path / "e.parquet", **columns))
    assert str(tmp_path / "e.parquet") in str(raised.value)


def test_no_rows_and_a_column_twice(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "video": [[1.0]], "audio": [[1.0]]})
    pq.write_table(table.slice(1), tmp_path / "e.parquet")
    with pytest.raises(UserError, match="'ids' is empty"):
        load_embeddings(tmp_path / "e.parquet")
    pq.write_table(table.append_column("video", table["audio"]), tmp_path / "e.parquet")
    with pytest.raises(UserError, match="there are several columns 'video'"):
        load_embeddings(tmp_path / "e.parquet")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "e.parquet")
    got = load_embeddings(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for act in (lambda: load_embeddings(path), lambda: save_embeddings(got, tmp_path / "f.parquet")):
        with pytest.raises(UserError, match="need the package pyarrow, which is not installed: pip install pyarrow"):
            act()
    save_embeddings(got, tmp_path / "f.npz")
