"""An untrained model on clips of features, which cost nothing to read."""

from pathlib import Path

import pytest

from cases.untrained import FEATURES, feature_clips, untrained
from mover.evaluate import embed_parts


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of 23 clips of features."""
    return feature_clips(tmp_path_factory.mktemp("features"), 23)


@pytest.fixture(scope="session")
def checkpoint(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("runs") / "best", clips, **FEATURES)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record after every batch."""
    monkeypatch.setattr(embed_parts, "_SECONDS", 0.0)
