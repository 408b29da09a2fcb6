"""One listing per folder: extensions, accents, odd names."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from mover.data.media_index import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS, MediaIndex


def test_names_and_extensions(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "café")
    folder = tmp_path / "m"
    (folder / "sub.mp4").mkdir(parents=True)
    for file in ("a.wav", "a.mp4", "b.c.mp4", f"{name}.mp4", ".mp4", "-x.MP4", "with space.mp4", "d"):
        (folder / file).write_bytes(b"")
    index = MediaIndex(folder)
    assert index.find("a") == folder / "a.mp4" and MediaIndex(folder, (".wav", ".mp4")).find("a") == folder / "a.wav"
    assert index.find("a", extensions=AUDIO_EXTENSIONS) == folder / "a.wav"
    assert index.find("b.c", extensions=AUDIO_EXTENSIONS) is None
    assert index.find("b.c", "a", extensions=AUDIO_EXTENSIONS + VIDEO_EXTENSIONS) == folder / "b.c.mp4"
    assert index.find("b.c") == folder / "b.c.mp4" and index.find("b") is None
    assert index.find("café") == folder / f"{name}.mp4"
    assert index.find("-x") and index.find("with space") and not index.find("sub") and not index.find("d")
    assert index.find("none", "a") == folder / "a.mp4"
    assert index.find("../m/a") is None and index.find("") is None
