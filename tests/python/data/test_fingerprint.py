"""Hashes of files: those of the content, remembered only as long as the file is the same."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mover.data.fingerprint import Fingerprints

OLD = time.time_ns() - 10**11


def write(path: Path, content: bytes, changed: int = OLD) -> Path:
    """A file that was last changed at a time of our own, in nanoseconds."""
    path.write_bytes(content)
    os.utime(path, ns=(changed, changed))
    return path


def expected(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=20).hexdigest()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that content is hashed."""
    counted: list[int] = []
    plain = hashlib.blake2b

    def count(**options):
        counted.append(1)
        return plain(**options)

    monkeypatch.setattr(hashlib, "blake2b", count)
    return counted


def test_equal_content_has_equal_hashes(tmp_path: Path) -> None:
    prints = Fingerprints(tmp_path / "memo.json")
    long = os.urandom(3 << 20)
    for name, content in (("a", b"x"), ("b", b""), ("c", long), ("d", long)):
        hash_ = prints.of(write(tmp_path / name, content))
        assert hash_ == hashlib.blake2b(content, digest_size=20).hexdigest() and len(hash_) == 40
    assert not (tmp_path / "memo.json").exists(), "nothing is written before save"


def test_what_is_unchanged_is_not_read_again(tmp_path: Path, reads: list[int]) -> None:
    path, memo = write(tmp_path / "a b ☃.mp4", b"content"), tmp_path / "deep" / "memo.json"
    prints = Fingerprints(memo)
    first = prints.of(path)
    assert prints.of(path) == first and len(reads) == 1
    prints.save()
    again = Fingerprints(memo)
    assert again.of(path) == first and again.of(Path(os.path.relpath(path))) == first and len(reads) == 1
    before = memo.stat().st_mtime_ns
    again.save()
    assert memo.stat().st_mtime_ns == before, "nothing new, nothing written"


@pytest.mark.parametrize(
    ("content", "changed"),
    [(b"CONTENT", OLD + 1), (b"content, longer", OLD), (b"short", OLD - 10**9)],
    ids=["later", "longer", "older"],
)
def test_what_has_changed_is_read_again(tmp_path: Path, content: bytes, changed: int) -> None:
    path = write(tmp_path / "a", b"content")
    prints = Fingerprints(tmp_path / "memo.json")
    prints.of(path)
    prints.save()
    write(path, content, changed)
    assert prints.of(path) == Fingerprints(tmp_path / "memo.json").of(path) == expected(content)


def test_a_file_just_written_may_change_unnoticed_and_is_not_remembered(tmp_path: Path) -> None:
    now = time.time_ns()
    path, prints = write(tmp_path / "a", b"one", now), Fingerprints(tmp_path / "memo.json")
    assert prints.of(path) == expected(b"one")
    write(path, b"two", now)  # within one step of the file system's clock
    assert prints.of(path) == expected(b"two")


def test_links_follow_what_they_point_to(tmp_path: Path) -> None:
    link, prints = tmp_path / "link", Fingerprints(tmp_path / "memo.json")
    for name in ("a", "b"):
        link.unlink(missing_ok=True)
        link.symlink_to(write(tmp_path / name, name.encode() * 2, OLD + ord(name)))
        assert prints.of(link) == expected(name.encode() * 2)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 0, "files": {}}', '{"version": 1, "files": {"/a": [1]}}', "null", "\xff"]
)
def test_a_damaged_memo_is_made_anew(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    memo = tmp_path / "memo.json"
    memo.write_text(text, encoding="latin-1")
    with caplog.at_level(logging.WARNING):
        prints = Fingerprints(memo)
    assert "memo.json" in caplog.text
    prints.of(write(tmp_path / "a", b"content"))
    prints.save()
    assert Fingerprints(memo).of(tmp_path / "a") == expected(b"content")


def test_two_that_save_keep_each_others_entries(tmp_path: Path) -> None:
    memo = tmp_path / "memo.json"
    one, two = Fingerprints(memo), Fingerprints(memo)
    one.of(write(tmp_path / "a", b"a"))
    two.of(write(tmp_path / "b", b"b"))
    one.save()
    two.save()
    assert len(json.loads(memo.read_text())["files"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "memo.json"]


def test_threads(tmp_path: Path) -> None:
    prints = Fingerprints(tmp_path / "memo.json")
    paths = [write(tmp_path / str(number), bytes([number])) for number in range(20)] * 5
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(prints.of, paths))
    assert found == [expected(bytes([number])) for number in range(20)] * 5


def test_what_cannot_be_read_raises(tmp_path: Path) -> None:
    prints = Fingerprints(tmp_path / "memo.json")
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError):
            prints.of(path)
