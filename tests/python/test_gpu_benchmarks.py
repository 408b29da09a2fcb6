"""The GPU benchmarks without a GPU: their contenders at tiny sizes on the CPU, the floors, the tables."""

from __future__ import annotations

import functools
import json
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))

import run as bench  # noqa: E402
import tables  # noqa: E402
from gpu import clock, contrast, entries, environment, logdet, ranking, rates, run, summary, transport, triples  # noqa: E402

RESULTS = ROOT / "docs" / "results"
STORED = sorted(RESULTS.glob("*-cuda.json"))
ENVIRONMENT = {"GPU": "none", "commit": "0"}


class HostClock(clock.Clock):
    """The same by the host's clock, on the CPU, where nothing can be captured."""

    device = torch.device("cpu")

    def __init__(self):
        self.deadline, self.cache_bytes = float("inf"), 1 << 16

    def samples(self, run, count, separate):
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - begin))
        return times

    def graph_of(self, run):
        run()
        return run

    def peak_mebibytes(self, run):
        run()
        return 1.0

    def wait(self):
        pass

    def free(self):
        pass


def no_jax(problem):
    raise ModuleNotFoundError("No module named 'jax'", name="jax")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(clock, "SECONDS", 0.0)
    small = transport.Setting(12, 16, 3)
    sizes = [small, transport.Setting(12, 16, 2, iterations=None), transport.Setting(8, 16, 5, iterations=20)]
    monkeypatch.setitem(transport.PLANS, "quick", sizes)
    monkeypatch.setattr(transport, "per_iteration", lambda clock, real=transport.per_iteration: real(clock, 12, 16))
    for name in ("unrolled", "implicit"):  # JAX takes long to import and to compile
        monkeypatch.setattr(transport.ott, name, no_jax)
    monkeypatch.setitem(triples.PLANS, "quick", ((10, False),))
    monkeypatch.setitem(contrast.PLANS, "quick", ((12, 3, 16, False), (10, 5, 16, False)))
    monkeypatch.setitem(ranking.PLANS, "quick", (70,))
    monkeypatch.setitem(logdet.PLANS, "quick", ((4, 30), (10, 30)))


@functools.cache  # some take seconds
def record_of(name):
    rows = run.BENCHMARKS[name].run("quick", HostClock())
    return {"command": "scripts/bench", "environment": ENVIRONMENT, "rates": rates.H200.record(), "rows": rows}


@pytest.mark.parametrize("name", run.BENCHMARKS)
def test_a_record_and_its_table(name, tmp_path):
    record = record_of(name)
    json_path, table_path = run.write(name, record, tmp_path)
    stored = json.loads(json_path.read_text())
    assert table_path.read_text() == run.render(name, stored)
    absent = {key: entry["absent"] for row in record["rows"] for key, entry in named(row) if "absent" in entry}
    libraries = {"GeomLoss SamplesLoss", "geomloss.ot", "POT", "POT batch", "OTT, unrolled", "OTT, implicit"}
    assert set(absent) <= {"mover, cuSOLVER", *libraries}, absent
    for row in record["rows"]:
        for key, entry in named(row):
            if key.startswith("mover") and "absent" not in entry:
                assert {entries.FORWARD, entries.GRAPH, entries.MEMORY} <= set(entry), key
    page = run.write_summary(tmp_path).read_text()
    assert f"[{name}]({name}-cuda.md)" in page
    assert "No GPU measurement" not in page


def named(row):
    return row.get("contenders", {}).items()


@pytest.mark.parametrize("name", run.BENCHMARKS)
def test_contenders_compute_the_same(name):
    for row in record_of(name)["rows"]:
        for key, entry in named(row):
            for error in ("error", "plan error"):
                assert entry.get(error, 0) < 1e-4, (key, error)
            if key.startswith(("mover", "closed", "stacked", "eager torch")):
                assert entry.get("gradient error", 0) < 0.2, key
            assert entry.get("other ranks", 0) <= 1, key
            assert entry.get("L1 error", 0) < (0.5 if row.get("iterations") else 1.01e-3), key


def test_stacked_gram_matrices_of_five_modalities():
    rows = torch.nn.functional.normalize(torch.randn(5, 6, 9, dtype=torch.float64), dim=-1)
    import mover.ops

    expected = mover.ops.volume_scores(rows[0], rows[1:].transpose(0, 1).contiguous())
    torch.testing.assert_close(contrast.stacked(*rows), expected)


def test_a_contender_that_fails_is_a_line_of_the_table():
    def broken():
        raise ModuleNotFoundError("No module named 'absent_library'", name="absent_library")

    def no_gradient():
        raise ValueError("the system is singular\nand more")

    makers = {
        "good": lambda: entries.Contender(lambda: None, lambda: None, lambda: {"error": 1e-7, "count": 3}),
        "broken": broken,
        "no gradient": lambda: entries.Contender(lambda: None, no_gradient, compiles=True, note="remarks"),
    }
    found = entries.measured("test", makers, HostClock())
    assert found["broken"] == {"absent": "absent_library is not installed"}
    assert entries.BACKWARD in found["good"] and entries.BACKWARD not in found["no gradient"]
    lines = entries.table(found, (0.5, None), ("error", "count", "never")).splitlines()
    assert lines[0].count("|") == lines[2].count("|") == lines[-1].count("|")
    assert "never" not in lines[0]
    assert lines[2].startswith("| floor | 0.500 |  |")
    assert "1.0e-07 | 3" in lines[3]
    assert "absent_library is not installed" in lines[4]
    assert "first calls" in lines[5] and "remarks; raises ValueError: the system is singular" in lines[5]


def test_a_capture_that_fails_leaves_the_other_times():
    host = HostClock()

    def refuse(run):
        raise RuntimeError("operation not permitted when stream is capturing")

    host.graph_of = refuse
    found = entries.measured("test", {"one": lambda: entries.Contender(lambda: None)}, host)["one"]
    assert entries.FORWARD in found and entries.GRAPH not in found
    assert found["no graph"].startswith("as a CUDA graph: raises RuntimeError: operation not permitted")


def test_no_measurement_begins_when_the_time_is_over():
    host = HostClock()
    host.deadline = time.monotonic() - 1
    found = entries.measured("test", {"one": lambda: entries.Contender(lambda: None)}, host)
    assert found["one"]["absent"] == "no time was left"
    assert "no time was left" in entries.table(found)


# ---- floors: k = 3, d = 512 on an H200, as the design worked them out ----


@pytest.mark.parametrize(
    ("rows", "products", "from_memory", "from_cache"),
    [
        (64, (0.03, 0.1, 0.2), 0.01, 0.01),
        (256, (0.5, 1.5, 3), 0.18, 0.13),
        (512, (2, 6, 12), 0.73, 0.52),
        (1024, (8, 24, 48), 2.9, 2.1),
        (2048, (33, 98, 192), 11.7, 8.4),
        (4096, (130, 390, 769), 47, None),
        (8192, (522, 1570, 3077), 187, None),
    ],
)
def test_floors_of_products_and_iterations(rows, products, from_memory, from_cache):
    """In microseconds, to the digits given."""
    flops = rates.product_flops(rows, 512, 3)
    for precision, expected in zip(("tf32", "3xtf32", "float32"), products, strict=True):
        assert 1e3 * rates.H200.products(flops, precision) == pytest.approx(expected, rel=0.07)
    assert 1e3 * rates.iteration(rates.H200, rows, 3, cached=False) == pytest.approx(from_memory, rel=0.15)
    if from_cache:
        assert 1e3 * rates.iteration(rates.H200, rows, 3, cached=True) == pytest.approx(from_cache, rel=0.19)


@pytest.mark.parametrize(
    ("rows", "precision", "expected"),
    [
        (2048, "tf32", 117),
        (4096, "tf32", 600),
        (4096, "3xtf32", 860),
        (4096, "float32", 1239),
        (8192, "tf32", 2390),
        (8192, "3xtf32", 3440),
        (8192, "float32", 4950),
    ],
)
def test_floors_of_ten_iterations_and_products(rows, precision, expected):
    assert 1e3 * rates.transport(rates.H200, rows, 512, 3, 10, precision) == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(
    ("rows", "forward", "gradients"),
    [(128, 0.0006, 0.0024), (256, 0.005, 0.019), (512, 0.04, 0.15), (1024, 0.31, 1.2), (2048, 2.5, 9.7)],
)
def test_floors_of_triples(rows, forward, gradients):
    assert rates.triples(rates.H200, rows, False) == pytest.approx(forward, rel=0.05)
    assert rates.triples(rates.H200, rows, True) == pytest.approx(gradients, rel=0.02)


def test_floor_of_small_cholesky_factors():
    assert 1e6 * rates.cholesky(rates.H200, 8, 1) == pytest.approx(0.034, rel=0.02)  # nanoseconds a matrix


def test_costs_of_a_pair_stay_in_the_cache_up_to_a_size():
    assert rates.stays_cached(rates.H200, 2048)
    assert not rates.stays_cached(rates.H200, 4096)
    few, many = (rates.transport(rates.H200, 1024, 512, rates.pair_count(k), 10, "tf32") for k in (2, 5))
    assert many == pytest.approx(10 * few)


def test_rates_are_measured():
    found = rates.measure(HostClock())
    assert all(value > 0 for value in found.record().values())
    assert "TB/s" in summary.rates_text(found)


# ---- the summary ----


def test_the_summary_without_measurements_has_empty_cells():
    page = summary.render({})
    goals = [line for line in page.splitlines() if line.startswith("| ") and ("≤" in line or "≥" in line)]
    assert len(goals) == 15
    assert all(line.endswith("|  |  |  |") for line in goals)
    assert "No GPU measurement was made yet" in page
    assert "| 4096 | 130 / 391 / 769 |" in page


def times(ms):
    return {"ms": ms, "low": ms, "high": ms, "runs": 9}


def test_the_summary_says_what_was_reached():
    def both(forward, backward):
        return {
            entries.FORWARD: times(2 * forward),
            entries.GRAPH: times(forward),
            entries.BACKWARD: times(2 * backward),
            entries.GRAPH_BACKWARD: times(backward),
        }

    def setting(rows):
        return {"rows": rows, "width": 512, "k": 3, "epsilon": 0.1, "iterations": 10, "pairs": 3, "compile": False}

    ours = {**both(0.1, 0.3), "forward / plan": 2.01, "backward / plan": 1.5}
    transports = [
        {**setting(1024), "contenders": {"mover": ours, "eager torch, batched": both(5, 6)}},
        {**setting(4096), "contenders": {"mover": ours}},
        {"rows": 1000, "width": 784, "k": 2, "iteration, ms": 0.02},
    ]
    scores = {"rows": 4096, "k": 3, "width": 512, "contenders": {"products": both(1, 2), "volume_scores": both(1, 4)}}
    common = {"environment": ENVIRONMENT, "rates": rates.H200.record()}
    records = {"transport": {"rows": transports, **common}, "contrast": {"rows": [scores], **common}}
    lines = {line.what: line for line in summary.lines(records, rates.H200)}
    ten = "transport, k = 3, d = 512, ten full iterations and the products, B = {}"
    assert lines[ten.format(1024)].cells()[1:] == ["≤ 0.15 ms", "0.0454", "0.100", "0.200", "yes"]
    assert lines[ten.format(2048)].reached == ""
    (one,) = (line for what, line in lines.items() if what.startswith("one full iteration"))
    assert one.reached == "yes"
    (ratio,) = (line for what, line in lines.items() if what.startswith("volume_scores"))
    assert ratio.measured == 2 and ratio.reached == "no"
    (eager,) = (line for what, line in lines.items() if what.startswith("the fastest of eager"))
    assert eager.measured == pytest.approx(20) and eager.reached == "yes"
    memory = [line.reached for what, line in lines.items() if what.startswith("memory")]
    assert memory == ["yes", "no"]
    assert "No GPU measurement" not in summary.render(records)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_tables_are_rendered_from_stored_records(path):
    record = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == run.render(path.stem.removesuffix("-cuda"), record)


def test_the_stored_summary_is_rendered_from_the_stored_records():
    assert (RESULTS / "cuda.md").read_text() == summary.render(run.stored(RESULTS))


# ---- the command ----


def test_arguments():
    assert bench._parse(["transport", "--quick"]).device == "cpu"
    parsed = bench._parse(["--device", "cuda", "logdet", "--within", "60"])
    assert parsed.names == ["logdet"] and parsed.within == 60
    assert set(bench.ON_GPU) == set(run.BENCHMARKS) == set(run.SHARES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["logdet"], "unknown benchmark 'logdet'; choose from transport, gradients"),
        (["--device", "cuda", "newton"], "unknown benchmark 'newton'; choose from transport, triples"),
        (["--within", "3"], "--within goes with --device cuda"),
        (["--table-only"], "--table-only goes with --device cuda"),
        (["--device", "cuda", "--quick", "--full"], "--quick and --full exclude each other"),
    ],
)
def test_wrong_arguments(words, message, capsys):
    with pytest.raises(SystemExit):
        bench._parse(words)
    assert message in capsys.readouterr().err


def test_the_plans_name_what_the_goals_need():
    """Every row that the summary looks for is measured by default."""
    settings = {(s.rows, s.width, s.k, s.epsilon, s.iterations) for s in transport.DEFAULT}
    assert all((rows, 512, 3, 0.1, 10) in settings for rows in summary.TRANSPORT_GOALS)
    assert set(summary.TRIPLE_GOALS) <= {size for size, _ in triples.PLANS["default"]}
    assert (4096, 3, 512) in {(n, k, d) for n, k, d, _ in contrast.PLANS["default"]}


def test_without_a_gpu_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run.main([], "quick", tmp_path, None, "") == 2
    assert capsys.readouterr().err.startswith("bench: ")
    assert not list(tmp_path.iterdir())


def test_a_benchmark_that_fails_keeps_no_other_from_running(monkeypatch, capsys, tmp_path):
    def fails(plan, clock):
        raise RuntimeError("out of order")

    monkeypatch.setattr(environment, "missing", lambda: "")
    monkeypatch.setattr(run, "without_kernels", lambda: "")
    monkeypatch.setattr(environment, "describe", lambda: dict(ENVIRONMENT))
    monkeypatch.setattr(run, "Clock", HostClock)
    monkeypatch.setattr(ranking, "run", fails)
    assert run.main(["ranking", "logdet"], "quick", tmp_path, 100.0, "abc") == 1
    told = capsys.readouterr()
    assert "out of order" in told.err and "failed: ranking" in told.err
    assert "logdet: mover failed: raises RuntimeError" in told.err  # cuSOLVER, which the CPU has not
    assert run.failures_of_mover([{"contenders": {"POT": {"absent": "raises ValueError: no"}}}]) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cuda.md", "logdet-cuda.json", "logdet-cuda.md"]
    assert json.loads((tmp_path / "logdet-cuda.json").read_text())["environment"]["commit"] == "abc"


def test_the_commit_is_known_or_said_to_be_unknown(monkeypatch):
    assert environment.commit() != ""
    monkeypatch.setenv("PATH", "")
    assert environment.commit() == "unknown"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (1234.4, "1234"), (12.34, "12.3"), (0.98765, "0.988"), (0.000666, "0.000666")],
)
def test_three_significant_figures(value, text):
    assert tables.figures(value) == text
