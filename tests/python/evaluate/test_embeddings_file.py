"""Files of embeddings: round trips in every format, files of others, and every way in which one can be wrong."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from mover.errors import UserError
from mover.evaluate.embeddings import Embeddings
from mover.evaluate.embeddings_content import Content, DiskRows
from mover.evaluate.embeddings_file import (
    FORMATS,
    load_embeddings,
    load_provenance,
    save_embeddings,
    write_content,
)

every_format = pytest.mark.parametrize("suffix", list(FORMATS))


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
    """An npz or safetensors file as others would write it."""
    given = arrays(**changed)
    if path.suffix == ".npz":
        np.savez(path, **given)
        return path
    names = {
        n: json.dumps(given.pop(n).tolist()) for n in ("ids", "labels") if n in given and given[n].dtype.kind == "U"
    }
    save_file({name: np.ascontiguousarray(array) for name, array in given.items()}, path, metadata=names)
    return path


def embeddings(dtype: type = np.float32, **changed: Any) -> Embeddings:
    """A clip without video, ragged captions, names in several scripts."""
    given = arrays()
    vectors = {m: given[m].astype(dtype) for m in ("text", "video", "audio")}
    vectors["video"][1] = 0
    entries: dict[str, Any] = {
        "ids": ["a b/ç", "狗 叫", "🙂"], "vectors": vectors, "text_owner": given["text_owner"],
        "present": {m: np.array([True, m != "video", True]) for m in vectors},
        "labels": ("dog", "", "Ünï, <b>"), "provenance": {"made by": "hand", "numbers": [1, 2.5, None]},
    }  # fmt: skip
    return Embeddings(**{**entries, **changed})


def same(one: Embeddings, other: Embeddings) -> bool:
    assert one.ids == other.ids and one.labels == other.labels and one.provenance == other.provenance
    assert one.modalities == other.modalities
    assert np.array_equal(one.text_owner, other.text_owner) and other.text_owner.dtype == np.int64
    for m in one.modalities:
        assert np.array_equal(one.vectors[m], other.vectors[m]) and one.vectors[m].dtype == other.vectors[m].dtype
        assert np.array_equal(one.present[m], other.present[m])
        assert other.vectors[m].flags.c_contiguous
    return True


@every_format
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_round_trip(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = tmp_path / "below" / f"e{suffix}"
    given = embeddings(dtype)
    save_embeddings(given, path)
    assert same(given, load_embeddings(path))
    assert load_provenance(path) == given.provenance
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    first = path.read_bytes()
    save_embeddings(given, path)  # in the place of the one that is there
    assert path.read_bytes() == first


@every_format
def test_round_trip_of_little(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"e{suffix}"
    one = {m: np.ones((1, 1)) for m in ("audio", "depth")}
    given = Embeddings(["only"], one, np.zeros(0, np.int64), {m: np.ones(1, bool) for m in one})
    save_embeddings(given, path)
    assert same(given, load_embeddings(path))
    assert load_provenance(path) == {}


@every_format
def test_captions_in_any_order_keep_their_clips(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"e{suffix}"
    owner = np.array([2, 0, 2, 0, 1])
    given = embeddings(text_owner=owner)
    save_embeddings(given, path)
    back = load_embeddings(path)
    assert back.text_owner.tolist() == ([0, 0, 1, 2, 2] if suffix == ".parquet" else owner.tolist())
    for clip in range(3):
        mine, theirs = given.vectors["text"][owner == clip], back.vectors["text"][back.text_owner == clip]
        assert np.array_equal(mine, theirs)


@every_format
def test_many_rows_and_clips_without_anything(tmp_path: Path, suffix: str) -> None:
    """More rows than are written at once, and a modality that most clips lack."""
    n, random = 9001, np.random.default_rng(1)
    counts = random.integers(0, 4, n)
    owner = np.repeat(np.arange(n), counts)
    present = {"text": counts > 0, "video": random.random(n) < 0.01}
    vectors = {"text": random.normal(size=(len(owner), 3)), "video": random.normal(size=(n, 3))}
    vectors["video"][~present["video"]] = 0
    given = Embeddings([f"clip {i}" for i in range(n)], vectors, owner, present)
    save_embeddings(given, tmp_path / f"e{suffix}")
    assert same(given, load_embeddings(tmp_path / f"e{suffix}"))


@every_format
def test_rows_on_disk_are_written_as_those_in_memory(tmp_path: Path, suffix: str) -> None:
    given = embeddings(text_owner=np.array([1, 0, 2, 0, 1]))
    rows = {}
    for m, array in given.vectors.items():
        array.tofile(tmp_path / m)
        rows[m] = DiskRows(tmp_path / m, *array.shape)
        assert np.array_equal(rows[m][1:3], array[1:3]) and np.array_equal(rows[m][np.array([2, 0])], array[[2, 0]])
        assert rows[m][2:1].shape == (0, 4)
    save_embeddings(given, tmp_path / f"memory{suffix}")
    content = Content(given.ids, rows, given.text_owner, given.present, given.labels, given.provenance)
    write_content(content, tmp_path / f"disk{suffix}", tmp_path / "aside")
    assert (tmp_path / f"disk{suffix}").read_bytes() == (tmp_path / f"memory{suffix}").read_bytes()
    with pytest.raises(EOFError, match="shorter"):
        DiskRows(tmp_path / "text", 6, 4)[0:6]


@every_format
def test_rows_on_disk_stay_there(tmp_path: Path, suffix: str) -> None:
    """2 x 32 MB are written with a few blocks in memory."""
    rows = {m: DiskRows(tmp_path / m, 1000, 8000) for m in ("video", "audio")}
    for array in rows.values():
        array.path.touch()
        os.truncate(array.path, array.nbytes)
    present = {m: np.ones(1000, bool) for m in rows}
    content = Content([str(i) for i in range(1000)], rows, np.zeros(0, np.int64), present, None, {})
    write_content(content, tmp_path / f"first{suffix}")  # what is imported for it does not count
    tracemalloc.start()
    try:
        write_content(content, tmp_path / f"e{suffix}")
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    assert (tmp_path / f"e{suffix}").stat().st_size > 64e6


@every_format
def test_rows_in_any_layout_and_byte_order(tmp_path: Path, suffix: str) -> None:
    plain = embeddings()
    wide = np.zeros((3, 8), np.float32)
    wide[:, ::2] = plain.vectors["audio"]
    odd = dict(plain.vectors, video=np.asfortranarray(plain.vectors["video"]), audio=wide[:, ::2])
    odd["text"] = plain.vectors["text"].astype(">f4")
    save_embeddings(embeddings(vectors=odd), tmp_path / f"e{suffix}")
    assert same(plain, load_embeddings(tmp_path / f"e{suffix}"))


def test_npz_of_others_in_any_layout_and_byte_order(tmp_path: Path) -> None:
    plain = arrays()
    odd = {"text": plain["text"].astype(">f4"), "video": np.asfortranarray(plain["video"])}
    odd["text_owner"] = plain["text_owner"].astype(">u2")
    one, other = load_embeddings(write(tmp_path / "a.npz")), load_embeddings(write(tmp_path / "b.npz", **odd))
    assert same(one, other)
    np.savez_compressed(tmp_path / "c.npz", **plain)
    assert same(one, load_embeddings(tmp_path / "c.npz"))
    assert same(one, load_embeddings(write(tmp_path / "d.safetensors")))


def test_bfloat16(tmp_path: Path) -> None:
    given = {name: torch.from_numpy(array) for name, array in arrays().items() if name != "ids"}
    given["video"] = given["video"].bfloat16()
    save_torch(given, tmp_path / "e.safetensors", metadata={"ids": json.dumps([7, "8", 9])})
    got = load_embeddings(tmp_path / "e.safetensors")
    assert got.ids == ["7", "8", "9"]
    assert got.vectors["video"].dtype == np.float32
    assert np.array_equal(got.vectors["video"], given["video"].float().numpy())


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_any_name_is_a_modality(tmp_path: Path, suffix: str) -> None:
    rows, flags = np.ones((3, 4), np.float16), np.array([True, True, False])
    path = write(tmp_path / f"e{suffix}", depth=rows, depth_present=flags, labels=np.array(["x", "", "z"]), a=rows)
    got = load_embeddings(path)
    assert got.modalities[:3] == ("text", "video", "audio") and set(got.modalities[3:]) == {"depth", "a"}
    assert got.missing("depth") == ["c"] and got.missing("a") == []
    assert got.labels == ("x", "", "z")
    bare = dict.fromkeys(("text", "text_owner", "video", "video_present"))
    assert load_embeddings(write(tmp_path / f"b{suffix}", **bare, image=rows)).modalities == ("audio", "image")


def test_one_caption_per_clip_needs_no_owner(tmp_path: Path) -> None:
    path = write(tmp_path / "e.npz", text=np.ones((3, 4)), text_owner=None)
    assert load_embeddings(path).text_owner.tolist() == [0, 1, 2]


def test_a_clip_without_caption_has_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "e.npz", text_owner=np.array([0, 0, 1, 1, 1]))
    assert load_embeddings(path).missing("text") == ["c"]


@pytest.mark.parametrize("ids", [np.array([5, 6, 7]), np.array([5, 6, 7], np.uint8), np.array([b"5", b"6", b"7"])])
def test_numbers_and_bytes_as_ids(tmp_path: Path, ids: np.ndarray) -> None:
    assert load_embeddings(write(tmp_path / "e.npz", ids=ids)).ids == ["5", "6", "7"]
    if ids.dtype.kind != "S":
        assert load_embeddings(write(tmp_path / "e.safetensors", ids=ids)).ids == ["5", "6", "7"]


def test_no_label_at_all_is_none(tmp_path: Path) -> None:
    assert load_embeddings(write(tmp_path / "e.npz", labels=np.array(["", "", ""]))).labels is None
    assert load_embeddings(write(tmp_path / "f.npz", labels=np.array([3, 1, 3]))).labels == ("3", "1", "3")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ids": None}, "there are no 'ids'; found audio, text, text_owner, video, video_present"),
    ({"ids": np.array(["a", "b", "a"])}, r"must be unique; of 3 rows 2 share 1 names, first 'a' \(2 rows\)"),
    ({"ids": np.array([], dtype=str)}, "'ids' is empty; expected the names of N clips, N >= 1"),
    ({"ids": np.array(["a", "b", ""])}, "the id at position 2 is empty"),
    ({"video": None, "audio": None, "video_present": None}, r"at least two of the arrays .*; found \['text'\]"),
    ({"video": None}, "there is 'video_present', but no array 'video'"),
    ({"Image": np.ones((3, 4))}, "'Image' is no name of a modality"),
    ({"image": np.ones((2, 4))}, r"'image' has the shape \(2, 4\); expected \(3, d\)"),
    ({"image": np.ones((3, 5))}, "one width to be compared; found text 4, video 4, audio 4, image 5"),
    ({"image": np.ones((3, 4)), "image_present": np.ones(4, dtype=bool)}, r"'image_present' is bool \(4,\)"),
    ({"video": np.ones((2, 4))}, r"'video' has the shape \(2, 4\); expected \(3, d\)"),
    ({"video": np.ones(3)}, "'video' has the shape"),
    ({"video": np.ones((3, 0))}, "'video' has the shape"),
    ({"text": np.ones((0, 4)), "text_owner": np.ones(0, int)}, r"'text' has the shape \(0, 4\); expected \(C, d\)"),
    ({"audio": np.ones((3, 5))}, "one width"),
    ({"audio": np.ones((3, 4), dtype=int)}, "'audio' has the type int64; expected floating point"),
    ({"text_owner": None}, r"5 captions for 3 ids need the array 'text_owner' \(5,\)"),
    ({"text_owner": np.array([0, 1, 2])}, r"'text_owner' is int64 \(3,\); expected integers"),
    ({"text_owner": np.array([0.0, 0, 1, 2, 2])}, "expected integers"),
    (
        {"text_owner": np.array([0, 7, 1, 2, 3])},
        r"2 of 5 captions belong to no clip.*0\.\.2, and that of caption 1 is 7",
    ),
    ({"text_owner": np.array([0, -1, 1, 2, 2])}, "1 of 5 captions belong to no clip.*that of caption 1 is -1"),
    ({"video_present": np.array([1, 0, 1])}, "expected bool"),
    ({"labels": np.array(["x", "y"])}, r"'labels' has the shape \(2,\); expected \(3,\)"),
]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("changed", "sentence"), WRONG)
def test_wrong_arrays(tmp_path: Path, suffix: str, changed: dict[str, Any], sentence: str) -> None:
    path = write(tmp_path / f"e{suffix}", **changed)
    with pytest.raises(UserError, match=sentence) as raised:
        load_embeddings(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"ids": np.array([["a"]])}, r"'ids' has the shape \(1, 1\); expected \(N,\)"),
        ({"ids": np.array([1.5, 2, 3])}, "'ids' has the type float64; expected strings or whole numbers"),
        ({"ids": np.array([b"a", b"b", b"\xff"])}, "'ids' holds bytes that are no UTF-8"),
        ({"ids": np.array(["a", "b", "\ud800"])}, "1 of 'ids' hold a zero byte or half a character"),
        ({"ids": np.array(["a", "b\0c", "d"])}, "1 of 'ids' hold a zero byte"),
        ({"ids": np.array(["a", "b", None], dtype=object)}, r"not a whole \.npz file.*'ids' holds Python objects"),
        ({"video": np.ones((3, 4), dtype=complex)}, "expected floating point"),
        ({"video": np.ones((3, 4), dtype=np.longdouble)}, "expected floating point of 16, 32 or 64 bits"),
        ({"video": np.array([object()] * 3)}, "'video' holds Python objects"),
        ({"labels": np.array([[1], [2], [3]])}, "'labels' has the shape"),
        ({"id": np.array(["a", "b", "c"])}, "there is 'id'; the array is called 'ids'"),
        ({"provenance": np.array("by hand")}, "'provenance' is no JSON object"),
        ({"provenance": np.array("[1]")}, "'provenance' is no JSON object"),
        ({"provenance": np.array([1.0])}, "'provenance' is no JSON object"),
    ],
)
def test_wrong_arrays_of_npz(tmp_path: Path, changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_embeddings(write(tmp_path / "e.npz", **changed))


def test_wrong_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    given = {name: array for name, array in arrays().items() if name != "ids"}
    for names in ("a, b, c", "[1.5, 2, 3]", '{"a": 1}', "[" * 100_000):
        save_file(given, path, metadata={"ids": names})
        with pytest.raises(UserError, match="'ids' in the metadata is no JSON list of strings or whole numbers"):
            load_embeddings(path)
    save_file({**given, "ids": np.arange(3)}, path, metadata={"ids": "[1, 2, 3]"})
    with pytest.raises(UserError, match="'ids' is a tensor and in the metadata, too"):
        load_embeddings(path)
    small = torch.zeros(3, 4, dtype=torch.float8_e4m3fn)
    save_torch({"video": small, "audio": torch.ones(3, 4)}, path, metadata={"ids": '["a", "b", "c"]'})
    with pytest.raises(UserError, match=r"'video' is of the type F8_E4M3"):
        load_embeddings(path)


def test_numbers_in_safetensors_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    for text in ("a", "ab", "abc", "abcd"):
        save_embeddings(embeddings(np.float16, provenance={"a": text}), path)
        size = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + size])
        assert size % 8 == 0
        sizes = {"I64": 8, "F16": 2, "BOOL": 1}
        arrays = [about for name, about in header.items() if name != "__metadata__"]
        assert len(arrays) == 7 and all(about["data_offsets"][0] % sizes[about["dtype"]] == 0 for about in arrays)


@every_format
def test_wrong_files(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UserError, match="no embeddings file at"):
        load_embeddings(tmp_path / f"absent{suffix}")
    save_embeddings(embeddings(), tmp_path / f"e{suffix}")
    whole = (tmp_path / f"e{suffix}").read_bytes()
    path = tmp_path / f"bad{suffix}"
    contents = {b"hello", b"", b"PK", b"PK\3\4", b"\xff" * 100, b"PAR1", *(whole[:n] for n in (1, 7, 8, 20, 100))}
    for content in contents | {whole[: len(whole) * part // 8] for part in range(1, 8)} | {whole[:-1]}:
        path.write_bytes(content)
        for read in (load_embeddings, load_provenance):
            with pytest.raises(UserError, match=rf"bad\{suffix}: not a whole \{suffix} file of plain arrays \(.+\)"):
                read(path)


@every_format
def test_the_ending_has_to_be_right(tmp_path: Path, suffix: str) -> None:
    save_embeddings(embeddings(), tmp_path / f"e{suffix}")
    for other in FORMATS:
        if other != suffix:
            path = (tmp_path / f"e{suffix}").replace(tmp_path / f"e{other}")
            with pytest.raises(UserError, match=rf"its content looks like a \{suffix} file"):
                load_embeddings(path)
            path.replace(tmp_path / f"e{suffix}")
    (tmp_path / f"e{suffix}").replace(tmp_path / "e.npy")
    for name in ("e.npy", "e", "E.PT"):
        with pytest.raises(
            UserError, match=r"a file of embeddings ends in \.npz, \.safetensors, \.parquet; .* ends in"
        ):
            save_embeddings(embeddings(), tmp_path / name)
    with pytest.raises(UserError, match="this name ends in '.npy'"):
        load_embeddings(tmp_path / "e.npy")
    save_embeddings(embeddings(), tmp_path / f"E{suffix.upper()}")
    assert same(embeddings(), load_embeddings(tmp_path / f"E{suffix.upper()}"))


def test_an_npy_file_is_no_npz(tmp_path: Path) -> None:
    with open(tmp_path / "e.npz", "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(UserError, match=r"it is no zip archive\); its content looks like a \.npy file"):
        load_embeddings(tmp_path / "e.npz")


def test_shapes_that_no_memory_holds(tmp_path: Path) -> None:
    """An array of 2^60 rows in a file of a few bytes."""
    write(tmp_path / "e.npz")
    import zipfile

    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive, archive.open("video.npy", "w") as member:
        header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 58, 4)}
        np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(UserError, match="f.npz: "):
        load_embeddings(tmp_path / "f.npz")


@every_format
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"ids": ["a", "b", "a"]}, "must be unique"),
        ({"ids": ["a", "b", "c\0"]}, "zero byte"),
        ({"labels": ("x",)}, "'labels' has the shape"),
        ({"text_owner": np.array([0, 0, 1, 2, 5])}, "belong to no clip"),
    ],
)
def test_what_could_not_be_read_is_not_written(
    tmp_path: Path, suffix: str, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        save_embeddings(embeddings(**changed), tmp_path / f"e{suffix}")
    assert list(tmp_path.iterdir()) == []


@every_format
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"e{suffix}"
    save_embeddings(embeddings(), path)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        save_embeddings(embeddings(np.float64), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot be written"):
        save_embeddings(embeddings(), path / "below.npz")  # a file where a folder should be
