"""How far the gradient of sum(plan * W) is from the exact one, for everything that differentiates a plan.

Relative error (Frobenius, x and y together) against a dense least-squares solve in float64 and plain torch where B is
small, else against `mover` in float64 at an L1 marginal error of 1e-12; the last line says how far these two are apart.
One pair, d = 512, W uniform in [0, 1), float32 unless a name says otherwise. Peers stop at an L1 error of 1e-3 unless
it says otherwise; the L1 error that each reached stands in brackets. "mover, converged" stops at the floor of float32.
Data: see `scripts/benchmarks/problems.py`; the number is epsilon.
"""

from __future__ import annotations

import torch
from measure import absent
from peers import Contender, gradient_peers
from problems import (
    Problem,
    dense_gradients,
    exact_gradients,
    gradients,
    l1_error,
    make,
    mover_plan,
    relative_error,
)
from tables import error
from tables import table as markdown

WIDTH, TOL = 512, 1e-3
SETTINGS = (("random", 0.1), ("random", 0.05), ("aligned", 0.1))
SIZES, QUICK = (64, 512), (64,)
DENSE = 128  # up to this B the exact gradient is that of a dense solve


def contenders() -> dict:
    def ours(tol: float, double: bool = False):
        def make_contender(problem: Problem) -> Contender:
            problem = problem.double() if double else problem
            plan = mover_plan(problem, tol)
            return Contender(lambda: plan(problem.x, problem.y), lambda: gradients(plan, problem))

        return make_contender

    return {
        "mover": ours(TOL),
        "mover, converged": ours(0.0),
        "mover, float64, L1 error 1e-9": ours(1e-9, double=True),
        **gradient_peers(),
    }


def run(quick: bool) -> list[dict]:
    """One row for each data set and batch size."""
    rows = []
    for size in QUICK if quick else SIZES:
        for data, epsilon in SETTINGS:
            problem = make(data, size, WIDTH, 1, epsilon, TOL)
            exact = dense_gradients(problem) if size <= DENSE else exact_gradients(problem)
            row: dict = {"B": size, "d": WIDTH, "data": data, "epsilon": epsilon, "tol": TOL, "contenders": {}}
            for name, maker in contenders().items():
                row["contenders"][name] = _entry(maker, problem, exact)
            if size <= DENSE:
                row["float64 against a dense solve"] = relative_error(exact_gradients(problem), exact)
            rows.append(row)
            print(
                f"gradients B={size} {data} {epsilon:g}: "
                + ", ".join(f"{name} {_cell(entry)}" for name, entry in row["contenders"].items()),
                flush=True,
            )
    return rows


def _entry(maker, problem: Problem, exact: tuple[torch.Tensor, torch.Tensor]) -> dict:
    try:
        contender = maker(problem)
        entry = {"L1 error": l1_error(contender.plan())}
        entry["gradient error"] = relative_error(contender.gradients(), exact)
        return entry
    except Exception as failure:  # a peer that fails is a cell of the table, not the end of the benchmark
        return {"absent": absent(failure)}


def _cell(entry: dict) -> str:
    return entry["absent"] if "absent" in entry else f"{error(entry['gradient error'])} ({error(entry['L1 error'])})"


def table(rows: list[dict]) -> str:
    """Markdown: a line for each contender, a column for each problem."""
    reasons: dict[str, int] = {}  # why a cell is empty → the number of its note

    def cell(entry: dict) -> str:
        if "absent" in entry:
            return f"({reasons.setdefault(entry['absent'], len(reasons) + 1)})"
        return _cell(entry)

    lines = [[name, *(cell(row["contenders"][name]) for row in rows)] for name in rows[0]["contenders"]]
    key = "float64 against a dense solve"
    lines.append([key, *(error(row.get(key)) for row in rows)])
    head = ["", *(f"{row['data']} {row['epsilon']:g}, B = {row['B']}" for row in rows)]
    notes = "".join(f"\n\n({number}) {reason}" for reason, number in reasons.items())
    return markdown(head, lines) + notes
