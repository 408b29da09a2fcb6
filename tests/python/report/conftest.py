"""A small run that was never trained, everything on the page included, and a browser to look at it."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markupsafe import Markup

from cases.reports import HOSTILE, WORDS, diagnostics_of, embeddings_of, log_of, material_of, plans_of
from mover.configs import load_config
from mover.data.manifest import Clip, read_manifest
from mover.data.synthetic import generate
from mover.report import curves, diagnostics, plan_maps, ranks, space, volumes
from mover.report.charts import Chart
from mover.report.material import Material
from mover.report.page import build_report, write_page


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Six real clips."""
    manifest = generate(tmp_path_factory.mktemp("clips") / "data", train=4, validation=1, test=1, progress=False)
    return read_manifest(manifest)


@pytest.fixture(scope="session")
def material(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Material:
    """24 clips: six with real media, one of them damaged, some without; names and captions that are hostile."""
    broken = tmp_path_factory.mktemp("broken") / "broken.mp4"
    broken.write_bytes(b"not a video")
    embeddings = embeddings_of(24, labels=tuple([HOSTILE, "ring", "bar"][i % 3] for i in range(24)), noise=1.0)
    names = [HOSTILE if i == 1 else name for i, name in enumerate(embeddings.ids)]
    embeddings = replace(embeddings, ids=names)
    counts = np.bincount(embeddings.text_owner)
    rows = {}
    for i, name in enumerate(names):
        captions = (HOSTILE, *WORDS)[: counts[i]] if i % 2 else tuple(WORDS[(i + j) % 6] for j in range(counts[i]))
        clip = replace(clips[i % 6], id=name, captions=captions)
        if i == 7:
            clip = replace(clip, video=broken, audio=broken)
        elif i == 8:
            clip = replace(clip, audio=None, status={"audio": "no_audio_track"})
        rows[name] = clip
    config = load_config("demo", {"data.tokenizer": "</td><script>alert(2)</script>"})
    return material_of(
        embeddings,
        rows,
        name=HOSTILE,
        config=config,
        log=log_of(12) + diagnostics_of(12),
        plans=plans_of((2, 4, 6, 8, 10, 12, 14, 16)),
    )


@pytest.fixture
def plain_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are drawn and not rendered, which takes most of the time of a page."""
    for module in (curves, diagnostics, plan_maps, ranks, space, volumes):
        monkeypatch.setattr(module, "chart", lambda figure, name, label: Chart(Markup("<svg/>"), label))


@pytest.fixture(scope="session")
def page(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about it, as a file."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(build_report(material, queries=12), path)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (scripts/bootstrap test)"
    )
    there = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    found = next(
        (name for name in there if not subprocess.run([name, "--version"], capture_output=True).returncode), None
    )
    if found is None:
        pytest.skip("no Chromium on PATH that runs (scripts/bootstrap test installs it)")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
