"""The commit told is that of the checkout the package runs from, and of no other."""

import subprocess
from pathlib import Path

import pytest
import torch

import mover
from mover.train.built_from import built_from


def place(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    package.mkdir(parents=True)
    monkeypatch.setattr(mover, "__file__", str(package / "__init__.py"))


def repository(folder: Path) -> str:
    """A git repository with one commit; its name."""
    folder.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (folder / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "one"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_a_checkout_has_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, tmp_path / "python" / "mover")
    commit = repository(tmp_path)
    assert built_from() == {"version": mover.__version__, "commit": commit[:12], "torch": torch.__version__}
    (tmp_path / "file").write_text("two")
    assert built_from()["commit"] == f"{commit[:12]}-dirty"


def test_a_package_installed_inside_someones_repository_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(monkeypatch, tmp_path / "env" / "site-packages" / "mover")
    repository(tmp_path)
    assert built_from()["commit"] is None


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, tmp_path / "python" / "mover")
    repository(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert built_from()["commit"] is None
