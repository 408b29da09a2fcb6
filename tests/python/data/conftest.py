"""How the tests of the data make clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cases.media import MediaMaker
from mover.data import Clip


@pytest.fixture(scope="session")
def make() -> type[MediaMaker]:
    """How to make media files."""
    return MediaMaker


@pytest.fixture(scope="session")
def media_folder(make: type[MediaMaker], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clip0.mp4 … clip11.mp4: 2 s, 16 frames that brighten from a level of the clip's own, a tone of its own."""
    folder = tmp_path_factory.mktemp("media")
    for number in range(12):
        levels = [10 * number + 4 * frame for frame in range(16)]
        make.write(folder / f"clip{number}.mp4", make.grey(levels), samples=make.tone(2.0, frequency=200 + 50 * number))
    return folder


@pytest.fixture
def clips(media_folder: Path) -> list[Clip]:
    """Twelve clips with three captions each."""
    return [
        Clip(
            id=f"clip{number}",
            captions=tuple(f"caption {kind} of clip {number}" for kind in ("one", "two", "three")),
            video=media_folder / f"clip{number}.mp4",
            audio=media_folder / f"clip{number}.mp4",
        )
        for number in range(12)
    ]


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[Clip], Clip]:
    """Makes a copy of a clip whose media file is empty."""

    def spoil(clip: Clip) -> Clip:
        path = tmp_path / f"{clip.id}.mp4"
        path.write_bytes(b"")
        return replace(clip, video=path, audio=path)

    return spoil
