"""Annotation files as they are published, and folders of empty media files: importers never open media."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


@pytest.fixture
def media(tmp_path: Path) -> Write:
    """Makes a folder with empty files: media("a.mp4", "train/b.mp4", folder="videos")."""

    def make(*names: str, folder: str = "media") -> Path:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"")
        return root

    return make


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes annotations: a string as it is, anything else as JSON; gives the path."""

    def make(name: str, content: Any, folder: str = "annotations") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return make
