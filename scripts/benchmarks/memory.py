"""Peak memory of plans of three pairs, forward + backward of sum(plan * W), for at most 10 and 100 iterations.

Contenders: `torch.ops.mover.transport`, whose backward keeps the rows and the plans and solves one linear system, and
log-domain Sinkhorn in eager torch, one pair at a time, whose backward keeps every iteration. The latter takes all
iterations allowed; the former ends at the floor of float32, an L1 error of 2e-6, after fewer than 100. MiB above what
was in use before; "plans" is the size of the three plans themselves. float32, d = 512.
"""

from __future__ import annotations

from measure import peak_mebibytes
from peers import eager
from problems import gradients, make, mover_plan
from tables import table as markdown

PAIRS, WIDTH, EPSILON = 3, 512, 0.1
SIZES, QUICK = (512, 1024, 2048), (256, 512)


def run(quick: bool) -> list[dict]:
    """One row for each batch size and number of iterations."""
    rows = []
    for size in QUICK if quick else SIZES:
        problem = make("aligned", size, WIDTH, PAIRS, EPSILON, tol=0.0)
        for iterations in (10, 100):
            plan = mover_plan(problem, tol=0.0, max_iter=iterations)
            row = {
                "B": size,
                "iterations": iterations,
                "plans": PAIRS * size * size * 4 / 2**20,
                "mover": peak_mebibytes(lambda: gradients(plan, problem)),
                "eager torch, pair loop": peak_mebibytes(eager.fixed(problem, iterations).gradients),
            }
            rows.append(row)
            print("memory " + ", ".join(f"{key} {value:.0f}" for key, value in row.items()), flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    names = [name for name in rows[0] if name not in ("B", "iterations")]
    lines = [[str(row["B"]), str(row["iterations"]), *(f"{row[name]:.0f}" for name in names)] for row in rows]
    return markdown(["B", "iterations, at most", *(f"{name}, MiB" for name in names)], lines)
