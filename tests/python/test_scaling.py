"""The model of scripts/scaling by hand, and docs/scaling.md, whose tables are those of the stored record."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cases.operators import unit_rows
from mover import ops

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "scale"


def script(name):
    """A module of scripts/scale, by a name that no other script has."""
    spec = importlib.util.spec_from_file_location(f"scale_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


model = script("model")
KEPT = {"text": 20, "video": 100, "audio": 300}
RECORDS = model.Records(
    steps=[{"count": "all", "parameters": 1000, "learning": 1000, "bfloat16": KEPT}],
    matrices=10.0, per_clip=7.0, solve=1e-9, rest=3e-9,
)  # fmt: skip


def test_exchanges_go_around_the_slowest_link():
    hardware = model.Hardware(nvlink=100.0, network=10.0, latency=0.5)
    assert hardware.all_gather(800.0, 8) == 800 * 7 / 8 / 100 + 3 * 0.5
    assert hardware.all_reduce(1600.0, 16) == 2 * (1600 * 15 / 16 / 10 + 4 * 0.5)


def test_memory_by_hand():
    run = model.Run(gpus=4, batch=64, frames=2, again=False, micro_batch=8)
    assert (run.clips, run.passes) == (16, 2)
    assert model.states(RECORDS, run, "ddp") == 18 * 1000
    assert model.states(RECORDS, run, "fsdp") == 16 * 1000 / 4 + 2 * 50265 * 768 * 4 + 4 * 1000
    assert model.activations(RECORDS, run) == 8 * (20 + 2 * 100 + 300)
    assert model.inputs(run) == 16 * (2 * 3 * 224 * 224 + 10 * 16000 * 4 + 40 * 2 * 8)
    assert model.embeddings(run) == 2 * 3 * 512 * 4 * 64
    assert model.objective(RECORDS, run) == 10 * 4 * 64 * 64 + 7 * 64
    largest = max(model.activations(RECORDS, run), model.objective(RECORDS, run))
    assert model.peak(RECORDS, run, "ddp") == 18000 + model.inputs(run) + model.embeddings(run) + largest


def test_a_layer_of_the_towers_by_hand():
    """Four products of width w x w and two of w x 4w on every token, and two of tokens x tokens."""
    one, two = model.forward_flops(0), model.forward_flops(1)
    layer = 2 * 197 * (4 * 768**2 + 2 * 4 * 768**2) + 2 * 2 * 197**2 * 768
    assert two - one == 12 * layer


def test_peaks_are_matrices_and_bytes_a_clip():
    rows = [{"batch": n, "peak": (10 * 4 * n**2 + 700 * n) / 2**20} for n in (100, 200)]
    assert model.peak_by(*rows) == pytest.approx((10, 700))


def test_rows_divide_the_solve():
    hardware = model.Hardware(nvlink=math.inf, network=math.inf, latency=0.0)
    run = model.Run(gpus=64, batch=6400)
    assert model.solve_seconds(hardware, RECORDS, run, False) == pytest.approx(1e-9 * 6400**2)
    assert model.solve_seconds(hardware, RECORDS, run, True) == pytest.approx(1e-9 * 6400**2 / 64)


def test_the_share_of_partners_is_that_of_plans():
    x, noise = (
        unit_rows(600, 512),
        torch.randn(600, 512, generator=torch.Generator().manual_seed(1)).double() / 512**0.5,
    )
    plan = ops.transport(x, torch.nn.functional.normalize(x / 2 + noise, dim=-1), epsilon=0.1).plan
    assert float(plan.trace()) == pytest.approx(model.partner_share(0.1, 600), abs=0.02)


def test_steps_of_two_processes_by_hand():
    """Those of one are 1 s, 10 ms a clip and the objective; exchanges of two are 5 ms and 1 us a byte."""
    seconds = lambda n: 5e-3 + 1e-6 * (n - 4096)  # noqa: E731
    exchanges = [
        {"processes": 2, "bytes": n, "all_gather": seconds(n), "all_reduce": 2 * seconds(n)} for n in (4096, 1 << 24)
    ]
    row = lambda processes, batch, s: {  # noqa: E731
        "processes": processes, "batch": batch, "s": s, "objective": 1e-6 * batch**2, "width": 8, "parameters": 50_000,
    }  # fmt: skip
    alone = [row(1, batch, 1 + 1e-2 * batch + 1e-6 * batch**2) for batch in (64, 32, 128)]
    first, second, third, pair = script("main").render.step_model([*alone, row(2, 128, 0.0)], exchanges)
    assert first is None and second is None
    assert third == pytest.approx(alone[2]["s"])
    exchanged = seconds(4 * 3 * 8 * 128) + 2 * seconds(200_000)
    assert pair == pytest.approx(1 + 64e-2 + 1e-6 * 128**2 + exchanged)


def test_the_page_has_the_tables_of_the_record():
    """Rendering again changes nothing."""
    page = ROOT / "docs" / "scaling.md"
    record = json.loads((ROOT / "docs" / "results" / "scaling.json").read_text())
    main = script("main")
    records = main._records(record)
    runs = [model.Run(gpus, batch) for gpus in main.render.GPUS for batch in main.render.BATCHES]
    text = before = page.read_text(encoding="utf-8")
    for name, table in main.render.tables(model.Hardware(), records, runs, record).items():
        text = main.render.between(text, name, table)
    assert text == before


def test_the_batch_script_of_the_page_is_one():
    script = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").split("```bash\n")[1].split("```")[0]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert script.startswith("#!/bin/bash\n#SBATCH")


def test_tables_for_other_sizes():
    words = [sys.executable, str(SCRIPTS / "main.py"), "--gpus", "16", "--batch", "1024", "--frames", "4"]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert out.count("| 16 | 1,024 | 64 |") == 2
