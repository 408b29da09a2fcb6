"""Plans to an L1 marginal error of 1e-6 in float64, by solver "auto" and by Sinkhorn's iterations alone.

`mover.ops.transport` of one pair, B = 512, d = 256, forward. "auto" goes over to Newton's method where Sinkhorn's
iterations are slow; "sinkhorn" takes at most 5000 of them. Two measures of what the problem costs, whatever error they
reach: "60 iterations" are sixty of `mover`'s own Sinkhorn iterations, "60 x exp" is torch's exponential of every
element sixty times, the least that sixty iterations in the log domain can take. The iterations of "auto" are Sinkhorn's
and Newton's together. In brackets the L1 error reached. Data: see `scripts/benchmarks/problems.py`.
"""

from __future__ import annotations

import torch
from measure import interleaved
from problems import l1_error, make, mover_plan
from tables import digits, error
from tables import table as markdown

import mover.ops

SIZE, WIDTH, TOL, MOST = 512, 256, 1e-6, 5000
SETTINGS = (
    ("aligned", 0.1),
    ("aligned", 0.05),
    ("gap", 0.05),
    ("gap", 0.03),
    ("gap", 0.02),
    ("gap", 0.01),
    ("random", 0.03),
    ("random", 0.02),
    ("random", 0.01),
)
QUICK = (("aligned", 0.05), ("gap", 0.03))
CONTENDERS = {"auto": ("auto", MOST, TOL), "sinkhorn": ("sinkhorn", MOST, TOL), "60 iterations": ("sinkhorn", 60, 0.0)}
EXPONENTIALS = "60 x exp"


def run(quick: bool) -> list[dict]:
    """One row for each data set and epsilon."""
    rows = []
    for data, epsilon in QUICK if quick else SETTINGS:
        problem = make(data, SIZE, WIDTH, 1, epsilon, TOL).double()
        row: dict = {"data": data, "epsilon": epsilon, "B": SIZE, "d": WIDTH, "tol": TOL, "contenders": {}}
        runs = {}
        for name, (solver, most, tol) in CONTENDERS.items():
            result = mover.ops.transport(problem.x, problem.y, epsilon=epsilon, max_iter=most, tol=tol, solver=solver)
            row["contenders"][name] = {"iterations": int(result.n_iter.max()), "L1 error": l1_error(result.plan)}
            plan = mover_plan(problem, tol, most, solver)
            runs[name] = lambda plan=plan: plan(problem.x, problem.y)
        scaled, buffer = -result.cost[0] / epsilon, torch.empty_like(result.cost[0])
        row["contenders"][EXPONENTIALS] = {}
        runs[EXPONENTIALS] = lambda: [torch.exp(scaled, out=buffer) for _ in range(60)]
        for name, times in interleaved(runs, least=3).items():
            row["contenders"][name]["forward"] = times
        rows.append(row)
        print(f"newton {data} {epsilon:g}: " + ", ".join(_cells(row)), flush=True)
    return rows


def _cells(row: dict) -> list[str]:
    return [
        f"{digits(entry['forward']['ms'])} ms"
        + (f", {entry['iterations']} iterations ({error(entry['L1 error'])})" if "iterations" in entry else "")
        for entry in row["contenders"].values()
    ]


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = []
    for row in rows:
        times = {name: entry["forward"]["ms"] for name, entry in row["contenders"].items()}
        ratios = [f"{ms / times['auto']:.2f}" for name, ms in times.items() if name != "auto"]
        lines.append([f"{row['data']} {row['epsilon']:g}", *_cells(row), *ratios])
    names = list(rows[0]["contenders"])
    return markdown(["data, epsilon", *names, *(f"{name} / auto" for name in names if name != "auto")], lines)
