"""The store of tower outputs: what is written is read, by several at once, and nothing stale has a name."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mover.data import Clip, MediaError, Reference
from mover.data.feature_cache import Fault, FeatureStore, TowerOutputs, caption_key
from mover.data.fingerprint import Fingerprints
from mover.errors import UserError

SHAPE = (2, 3)
SETTINGS = {"tower": "abc", "frames": 2, "audio_seconds": 1.5}


def store(folder: Path, shape: tuple[int, ...] = SHAPE, modality: str = "video", **changes: Any) -> FeatureStore:
    return FeatureStore(folder, modality, shape, {**SETTINGS, **changes})


def values(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)


def key(number: int) -> bytes:
    return caption_key(str(number))


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    kept = store(tmp_path)
    assert len(kept) == 0
    special = np.array([[0.0, -0.0, np.finfo(np.float32).tiny / 2], [1e38, -1e-38, 1 / 3]], np.float32)
    turned = np.asfortranarray(values(2))
    kept.write({key(1): values(1), key(2): turned, key(3): Fault("corrupt", 'it is "broken" ☃'), key(4): special})
    for other in (kept, store(tmp_path)):
        assert len(other) == 4 and other.size() > 0
        assert np.array_equal(other.read(key(1)), values(1)) and other.read(key(1)).dtype == np.float32
        assert np.array_equal(other.read(key(2)), turned)
        assert other.read(key(3)) == Fault("corrupt", 'it is "broken" ☃')
        assert np.asarray(other.read(key(4))).tobytes() == special.tobytes()
        with pytest.raises(KeyError, match="no entry"):
            other.read(key(5))


@pytest.mark.parametrize("shape", [(1,), (768,), (8, 768), (5, 1)])
def test_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    kept = store(tmp_path, shape)
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    kept.write({key(1): array})
    assert np.array_equal(store(tmp_path, shape).read(key(1)), array)


def test_missing_keys_once_each_and_in_order(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.write({key(n): values(n) for n in range(0, 1300, 2)})
    kept.write({key(1): Fault("too_short", "x")})
    asked = [key(n) for n in [7, 3, 3, 1, *range(1300)]]
    assert kept.missing(asked) == [key(7), key(3), *(key(n) for n in range(5, 1300, 2) if n != 7)]
    assert kept.missing([]) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.write({key(1): values(1)})
    kept.write({key(1): values(2), key(2): values(2)})
    assert np.array_equal(kept.read(key(1)), values(1)) and np.array_equal(kept.read(key(2)), values(2))


@pytest.mark.parametrize("array", [np.zeros((3, 2), np.float32), np.full(SHAPE, np.nan), np.full(SHAPE, np.inf)])
def test_wrong_values_are_refused_and_nothing_is_written(tmp_path: Path, array: np.ndarray) -> None:
    kept = store(tmp_path)
    with pytest.raises(ValueError, match=r"finite values of shape \(2, 3\)"):
        kept.write({key(1): values(1), key(2): array})
    assert len(kept) == 0


def test_any_setting_and_the_modality_lead_to_another_folder(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.write({key(1): values(1)})
    assert store(tmp_path).folder == first.folder
    assert FeatureStore(tmp_path, "video", SHAPE, dict(reversed(SETTINGS.items()))).folder == first.folder
    others = [
        store(tmp_path, tower="abd"), store(tmp_path, frames=3), store(tmp_path, audio_seconds=1.5000000000000002),
        store(tmp_path, modality="depth"), store(tmp_path, shape=(3, 2)), store(tmp_path, more=None),
    ]  # fmt: skip
    assert len({other.folder for other in (first, *others)}) == 7
    assert all(other.missing([key(1)]) == [key(1)] for other in others)
    about = json.loads((first.folder / "about.json").read_text())
    assert about["frames"] == 2 and about["shape of an output"] == [2, 3] and about["modality"] == "video"


def test_threads_and_processes_share_it(tmp_path: Path) -> None:
    kept = store(tmp_path)
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from mover.data.feature_cache import FeatureStore, caption_key\n"
        f"kept = FeatureStore(Path(sys.argv[1]), 'video', {SHAPE}, {SETTINGS})\n"
        "for n in range(0, 300, 10):\n"
        f"    kept.write({{caption_key(str(i)): np.full({SHAPE}, i, np.float32) for i in range(n, n + 10)}})\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]

    def work(n: int) -> bool:
        kept.write({key(n): np.full(SHAPE, n, np.float32)})
        return bool((np.asarray(kept.read(key(n))) == n).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(200, 400)))
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(kept) == 400
    assert all((np.asarray(kept.read(key(n))) == n).all() for n in range(400))


def test_a_kill_loses_only_what_was_not_written(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from mover.data.feature_cache import FeatureStore, caption_key\n"
        f"kept = FeatureStore(Path(sys.argv[1]), 'video', {SHAPE}, {SETTINGS})\n"
        f"kept.write({{caption_key('1'): np.ones({SHAPE}, np.float32)}})\n"
        "kept._database.execute('BEGIN IMMEDIATE')\n"
        "kept._database.execute('INSERT INTO outputs VALUES (?, NULL, NULL)', (caption_key('2'),))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = store(tmp_path)
    assert kept.missing([key(1), key(2)]) == [key(2)]
    kept.write({key(2): values(2)})
    assert len(kept) == 2


@pytest.mark.parametrize("damage", ["not a database", "cut", "other table", "short entry"])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, damage: str) -> None:
    kept = store(tmp_path)
    kept.write({key(n): values(n) for n in range(200)})
    path = kept.folder / "outputs.sqlite"
    del kept
    if damage == "not a database":
        path.write_bytes(b"x" * 5000)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:20000])
    else:
        with sqlite3.connect(path) as database:
            if damage == "other table":
                database.execute("ALTER TABLE outputs RENAME COLUMN value TO thing")
            else:
                database.execute("UPDATE outputs SET value = x'0000'")
        database.close()

    def read_all() -> None:
        again = store(tmp_path)
        again.missing([key(n) for n in range(200)])
        for n in range(200):
            again.read(key(n))

    with pytest.raises(UserError, match=r"outputs\.sqlite cannot be used.*delete .*video-"):
        read_all()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/video-\w+ cannot be written.*data\.cache_folder"):
        store(tmp_path / "file")


def outputs(folder: Path, modality: str = "video") -> TowerOutputs:
    return TowerOutputs(modality, store(folder / "cache"), Fingerprints(folder / "memo.json"))


def media(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    past = time.time_ns() - 10**10
    os.utime(path, ns=(past, past))
    return path


def test_the_key_of_a_clip_is_its_content_and_its_part(tmp_path: Path) -> None:
    one, copy, other = (media(tmp_path / n, c) for n, c in (("a", b"one"), ("b", b"one"), ("c", b"two")))
    find = outputs(tmp_path)
    clip = Clip("x", video=one)
    first = find.key(clip)
    for same in (
        replace(clip, id="y", captions=("c",), split="test"),
        replace(clip, video=copy),
        replace(clip, duration=2.0),
    ):
        assert find.key(same) == first
    part = replace(clip, start=1.0)
    keys = [find.key(c) for c in (
        replace(clip, video=other), part, replace(part, start=1.5), replace(part, duration=2.0),
        replace(part, duration=3.0), replace(clip, start=0.0),
    )]  # fmt: skip
    assert len({first, *keys}) == 7

    picture = Clip("x", video=other, start=1.0, others={"image": Reference(one)})
    images = outputs(tmp_path, "image")
    assert images.key(picture) == images.key(replace(picture, start=None)) == first  # a picture has no parts


def test_content_of_the_same_size_is_another_key(tmp_path: Path) -> None:
    path = media(tmp_path / "a", b"one")
    clip = Clip("x", video=path)
    find = outputs(tmp_path)
    first = find.key(clip)
    path.write_bytes(b"two")
    assert find.key(clip) == first  # as it was when this run looked
    assert find.key(clip, again=True) == find.key(clip) == outputs(tmp_path).key(clip) != first
    media(path, b"one")
    assert outputs(tmp_path).key(clip) == first


def test_outputs_and_faults_of_clips(tmp_path: Path) -> None:
    good, bad = (Clip(name, video=media(tmp_path / name, name.encode())) for name in ("good", "bad"))
    find = outputs(tmp_path)
    find.store.write(
        {find.key(good): values(1), find.key(bad): Fault("corrupt", "no frame"), caption_key("hi"): values(2)}
    )
    assert np.array_equal(find.of(good), values(1))
    with pytest.raises(MediaError, match=r"bad: no frame \(status corrupt\)"):
        find.of(bad)
    assert np.array_equal(find.of_caption("hi"), values(2))
    with pytest.raises(MediaError, match=r"gone: there is no such file \(status missing\)"):
        find.of(Clip("x", video=tmp_path / "gone"))
    with pytest.raises(MediaError, match=r"cannot be read.*\(status corrupt\)"):
        find.of(Clip("x", video=tmp_path))


def test_captions_differ_by_any_character() -> None:
    texts = ["a dog", "a dog ", "A dog", "a  dog", "a dög", "", "1", "null", "\ud800"]
    assert len({caption_key(text) for text in texts}) == len(texts)
    assert caption_key("a dog") == caption_key("a" + " dog")
