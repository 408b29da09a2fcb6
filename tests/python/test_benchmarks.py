"""The benchmarks run on tiny sizes, their peers solve the problem that mover solves, and the stored tables are those of
the stored records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))

import contrast  # noqa: E402
import evaluation  # noqa: E402
import frozen  # noqa: E402
import gradients  # noqa: E402
import manifests  # noqa: E402
import measure  # noqa: E402
import media  # noqa: E402
import memory  # noqa: E402
import newton  # noqa: E402
import peers  # noqa: E402
import pool  # noqa: E402
import problems  # noqa: E402
import ranking  # noqa: E402
import run  # noqa: E402
import tables  # noqa: E402
import threads  # noqa: E402
import training_steps  # noqa: E402
import transport  # noqa: E402
import triples  # noqa: E402

import mover.ops  # noqa: E402

STORED = sorted((ROOT / "docs" / "results").glob("*-cpu.json"))
PEERS = {**peers.transport_peers(), **peers.gradient_peers()}
COMPILING = "torch.compile, pair loop"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """One thread, few runs, small sizes, and nothing that compiles or is imported for long."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(measure, "SECONDS", 0.0)
    for module, sizes in ((transport, (12,)), (gradients, (12,)), (contrast, (12,)), (triples, (12,)), (memory, (12,))):
        monkeypatch.setattr(module, "QUICK", sizes)
    monkeypatch.setattr(ranking, "QUICK", (70,))
    monkeypatch.setattr(pool, "QUICK", (20,))
    monkeypatch.setattr(evaluation, "QUICK", (70,))
    monkeypatch.setattr(evaluation, "QUICK_FILE", 20)
    monkeypatch.setattr(evaluation, "RUNS", 1)
    monkeypatch.setattr(manifests, "QUICK", (8, 12))
    monkeypatch.setattr(media, "QUICK", {"seconds": 1, "clips": 4, "rows": 3, "steps": 1, "step_ms": (1,)})
    monkeypatch.setattr(media, "RUNS", 1)
    monkeypatch.setattr(frozen, "STEPS", {"tiny": (1, 2)})
    monkeypatch.setattr(training_steps, "in_a_process", training_steps.measured)
    monkeypatch.setattr(training_steps, "_model", _small_model)
    monkeypatch.setattr(training_steps, "SECONDS", 1.0)
    monkeypatch.setattr(gradients, "SETTINGS", (("random", 0.3),))
    monkeypatch.setattr(newton, "SIZE", 12)
    monkeypatch.setattr(newton, "QUICK", (("random", 0.1),))
    monkeypatch.setattr(contrast, "compiled", lambda: lambda t, v, a: contrast.loss(contrast.closed_form(t, v, a)))
    monkeypatch.setattr(triples, "compiled", lambda: triples.chunked(triples.chunk_sum))
    some = {"eager torch": PEERS["eager torch, pair loop"], "broken": _broken, "no gradient": _no_gradient}
    monkeypatch.setattr(transport, "transport_peers", lambda: some)
    monkeypatch.setattr(gradients, "gradient_peers", lambda: some)
    yield
    torch.set_num_threads(count)
    measure.keep_freed_pages(False)


def _small_model(learns, again, frames):
    from mover.configs import load_config
    from mover.models.model import MoverModel

    sizes = {"layers": 4, "hidden_size": 16, "heads": 2, "intermediate_size": 16, "gradient_checkpointing": again}
    settings = {f"model.{tower}.{name}": value for tower in training_steps.TOKENS for name, value in sizes.items()}
    settings |= {f"model.{tower}.trained_layers": training_steps.LEARNS[learns] for tower in training_steps.TOKENS}
    settings |= {"data.frames": frames, "model.audio.embed_dim": 8}
    config = load_config(None, settings)
    return config, MoverModel(config.model, config.data, config.modalities, vocab_size=50265)


def _broken(problem: problems.Problem) -> peers.Contender:
    raise ModuleNotFoundError("No module named 'absent_library'", name="absent_library")


def _no_gradient(problem: problems.Problem) -> peers.Contender:
    def raises() -> None:
        raise ValueError("the system is singular\nand more")

    return peers.Contender(PEERS["eager torch, pair loop"](problem).plan, raises)


@pytest.mark.parametrize("name", [name for name in run.BENCHMARKS if name not in ("transport", "threads")])
def test_a_benchmark_writes_a_record_and_its_table(name, tmp_path):
    record_path, table_path = run.write(name, True, tmp_path, measure.environment())
    record, text = json.loads(record_path.read_text()), table_path.read_text()
    assert record["command"] == f"scripts/bench {name} --quick"
    assert record["environment"]["torch"] == torch.__version__
    assert text == run.render(name, record)
    assert "mover" in text
    assert record_path.name in text


def test_transport_reports_errors_and_what_is_missing(tmp_path):
    record_path, table_path = run.write("transport", True, tmp_path, measure.environment())
    record, text = json.loads(record_path.read_text()), table_path.read_text()
    (row,) = record["rows"]
    entries = row["contenders"]
    assert entries["mover"]["L1 error"] <= 1e-3
    assert entries["mover, converged"]["gradient error"] <= 1e-3
    assert set(entries["mover"]["forward + backward"]) == {"ms", "low", "high", "runs"}
    assert entries["broken"] == {"absent": "absent_library is not installed"}
    assert entries["no gradient"]["no gradient"] == "raises ValueError: the system is singular"
    assert "forward + backward" not in entries["no gradient"]
    assert text == run.render("transport", record)
    assert "absent_library is not installed" in text
    assert "the system is singular" in text


@pytest.mark.parametrize("name", ["contrast", "triples", "ranking"])
def test_contenders_compute_the_same(name):
    (row,) = run.module_of(name).run(quick=True)
    for contender, entry in row["contenders"].items():
        if contender == "products" or "absent" in entry:
            continue
        assert entry.get("error", 0) < 1e-5, contender
        assert entry.get("gradient error", 0) < 1e-4, contender
        assert entry.get("other ranks", 0) <= 1, contender
    if name == "contrast":
        finite = {contender: entry.get("finite where text = video") for contender, entry in row["contenders"].items()}
        assert finite["mover"] is True


def test_transport_leaves_out_what_was_too_slow(monkeypatch):
    monkeypatch.setattr(transport, "QUICK", (8, 12))
    monkeypatch.setattr(transport, "LIMIT", 0.0)
    first, second = transport.run(quick=True)
    assert first["contenders"]["eager torch"]["forward"]["ms"] > 0
    assert second["contenders"]["eager torch"]["absent"].endswith("at B = 8")


def test_a_wrong_gradient_is_no_fastest_peer():
    times = {"ms": 1.0, "low": 1.0, "high": 1.0, "runs": 5}
    entry = {"forward": times, "forward + backward": times, "gradient error": 1e-2}
    wrong = {"forward": {**times, "ms": 0.5}, "forward + backward": {**times, "ms": 0.5}, "gradient error": 0.6}
    row = {"B": 8, "iterations": [3], "contenders": {"products": entry, "mover": entry, "slow": entry, "wrong": wrong}}
    forward, both = transport.table([row]).splitlines()[2:4]
    assert "wrong 0.50" in forward
    assert "slow 1.00" in both


def test_threads_compares_one_with_two():
    rows = threads._rows([12], [8])
    assert {row["operation"] for row in rows} == {"products", "transport", "scores", "triples"}
    assert all(set(row["times"]) == {"1", "2"} for row in rows)
    assert threads.table(rows).count("\n") == len(rows) + 1
    assert threads.table([]) == "This machine has one processor."


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_tables_are_rendered_from_stored_records(path):
    record = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == run.render(path.stem.removesuffix("-cpu"), record)


@pytest.mark.parametrize("name", [name for name in PEERS if name != COMPILING])
def test_peers_solve_the_same_problem(name):
    problem = problems.make("aligned", 12, 16, 2, epsilon=0.5, tol=1e-3)
    exact = mover.ops.transport(problem.x.double(), problem.y.double(), epsilon=0.5, max_iter=5000, tol=1e-12).plan
    try:
        plan = PEERS[name](problem).plan()
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    assert plan.shape == exact.shape
    assert problems.relative_error((plan,), (exact,)) < 2e-3


@pytest.mark.parametrize(("data", "cosine"), [("random", 0.0), ("aligned", 0.45), ("gap", 0.0)])
def test_data_are_unit_rows_of_the_kind_that_is_named(data, cosine):
    problem = problems.make(data, 64, 512, 2, 0.1, 1e-3)
    assert torch.allclose(problem.x.norm(dim=-1), torch.ones(2, 64)) and torch.allclose(
        problem.y.norm(dim=-1), torch.ones(2, 64)
    )
    within = (problem.x[0] @ problem.x[0].T).fill_diagonal_(0).sum() / (64 * 63)
    assert within.item() == pytest.approx(0.5 if data == "gap" else 0.0, abs=0.05)
    matched = (problem.x * problem.y).sum(-1).mean().item()
    unmatched = (problem.x * problem.y.roll(1, 1)).sum(-1).mean().item()
    assert matched - unmatched == pytest.approx({"gap": 0.225}.get(data, cosine), abs=0.03)


def test_exact_gradients_agree_with_a_dense_solve():
    problem = problems.make("aligned", 16, 32, 2, 0.3, 1e-3)
    assert problems.relative_error(problems.exact_gradients(problem), problems.dense_gradients(problem)) < 1e-8


def test_errors_of_plans_and_gradients_by_hand():
    plan = torch.tensor([[[0.5, 0.0], [0.1, 0.5]]])
    assert problems.l1_error(plan) == pytest.approx(0.1 + 0.1)
    found, exact = (torch.tensor([3.0]), torch.tensor([4.5])), (torch.tensor([3.0]), torch.tensor([4.0]))
    assert problems.relative_error(found, exact) == pytest.approx(0.1)


@pytest.mark.parametrize("needed", [1, 2, 7, 8, 9, 31])
def test_the_fewest_iterations_are_found(needed):
    assert measure.fewest_iterations(lambda count: 1.0 if count < needed else 1e-3, 1e-3) == needed


def test_a_peer_that_never_converges_or_takes_too_long_says_so(monkeypatch):
    with pytest.raises(ArithmeticError, match="does not reach an L1 error of 0.001"):
        measure.fewest_iterations(lambda count: 1.0, 1e-3)
    monkeypatch.setattr(measure, "LIMIT", 0.0)
    with pytest.raises(measure.TooSlow, match="one call takes 0 s"):
        measure.fewest_iterations(lambda count: 0.0, 1e-3)


def test_contenders_take_turns(monkeypatch):
    monkeypatch.setattr(measure, "MOST", 6)
    monkeypatch.setattr(measure, "SECONDS", 1.0)
    took = {"fast": 0.0, "slow": 0.4, "too slow": 9.0}
    calls = []

    def timed(call):
        name = call()
        return took[name] or 1e-9, None

    monkeypatch.setattr(measure, "timed", timed)
    contenders = {name: lambda name=name: calls.append(name) or name for name in took}
    times = measure.interleaved(contenders, least=3)
    assert {name: value["runs"] for name, value in times.items()} == {"fast": 6, "slow": 3, "too slow": 1}
    assert calls[3:] == ["fast", "fast", "slow"] * 3
    assert times["too slow"]["ms"] == 9000
    assert tables.milliseconds(times["too slow"]) == "9000, once"


def test_the_cause_of_a_failure_is_found_in_a_nested_traceback():
    message = "INTERNAL: callback failed: Traceback\n  File x\nSomeError: the solver returned NaN\n-----\nan end"
    assert measure.absent(RuntimeError(message)) == "raises RuntimeError: the solver returned NaN"
    assert measure.absent(RuntimeError("")) == "raises RuntimeError: "


def test_memory_of_a_step_is_computed_from_parameters_and_what_is_kept():
    kept = {"count": "all", "parameters": 3 * 2**20, "learning": 2**20}
    kept |= {p: {"text": s * 2**20, "video": 2 * s * 2**20, "audio": 4 * s * 2**20} for p, s in
             (("float32", 2), ("bfloat16", 1))}  # fmt: skip
    row = {"batch": 3, "frames": 5, "learns": "all", "again": False}
    assert training_steps.computed([kept], row) == 4 * 3 + 12 + 3 * (2 + 5 * 4 + 8)
    assert training_steps.per_clip(kept, 5, False, "bfloat16") == 2**20 * (1 + 5 * 2 + 4)
    inputs = (40 + 5 * 197 + 496) * 12 * 768 * 2
    assert training_steps.per_clip(kept, 5, True, "bfloat16") == inputs + 2 * 2**20 * 5 * 2 / 12
    frozen = {**kept, "count": "heads"}
    assert training_steps.per_clip(frozen, 5, True, "bfloat16") == training_steps.per_clip(frozen, 5, False, "bfloat16")
