"""Plans of three pairs to an L1 marginal error of 1e-3, forward and forward + backward of sum(plan * W).

"products" are the matrix products alone, the floor: x yT, and in the backward the two that gradients of x and y take.
"mover" is `torch.ops.mover.transport`; "mover, converged" the same to the floor of float32, an L1 error of 2e-6. The
peers are described in `scripts/benchmarks/peers`. All take the same epsilon and float32. Data "aligned":
y = normalise(x / 2 + n), n ~ N(0, I / d), with epsilon .1 and d = 512. Beside every time stand the L1 error reached
and the relative error of the gradient against the exact one in float64; a peer whose gradient is wrong by half or more
is no "fastest peer" of forward + backward. "first calls" are the seconds of the first forward and the first forward +
backward, of those that compile.
"""

from __future__ import annotations

from measure import LIMIT, absent, interleaved, timed
from peers import Contender, transport_peers
from problems import Problem, exact_gradients, gradients, l1_error, make, mover_plan, relative_error
from tables import digits, error, milliseconds
from tables import table as markdown

import mover.ops

PAIRS, WIDTH, EPSILON, TOL = 3, 512, 0.1, 1e-3
SIZES, QUICK = (128, 512, 1024, 2048), (128, 256)
FORWARD, BACKWARD = "forward", "forward + backward"
WRONG = 0.5  # relative error from which on a gradient does not count


def products(problem: Problem) -> Contender:
    triples = list(zip(problem.x, problem.y, problem.weight, strict=True))
    return Contender(
        lambda: [a @ b.T for a, b, _ in triples], lambda: [(a @ b.T, w @ b, w.T @ a) for a, b, w in triples]
    )


def ours(problem: Problem, tol: float) -> Contender:
    plan = mover_plan(problem, tol)
    return Contender(lambda: plan(problem.x, problem.y), lambda: gradients(plan, problem))


def run(quick: bool) -> list[dict]:
    """One row for each batch size."""
    rows, too_slow = [], {}
    for size in QUICK if quick else SIZES:
        problem = make("aligned", size, WIDTH, PAIRS, EPSILON, TOL)
        result = mover.ops.transport(problem.x, problem.y, epsilon=EPSILON, max_iter=1000, tol=TOL)
        entries, ready = _prepare(problem, too_slow)
        for what, call in ((FORWARD, "plan"), (BACKWARD, "gradients")):
            able = [name for name in ready if what == FORWARD or "no gradient" not in entries[name]]
            runs = {name: getattr(ready[name], call) for name in able}
            for name, times in interleaved(runs).items():
                entries[name][what] = times
                if times["ms"] > 1e3 * LIMIT:
                    too_slow[name] = f"one call takes {times['ms'] / 1e3:.0f} s at B = {size}"
                print(f"transport B={size} {what}: {name} {times['ms']:.1f} ms", flush=True)
        rows.append(
            {
                "B": size,
                "d": WIDTH,
                "pairs": PAIRS,
                "epsilon": EPSILON,
                "tol": TOL,
                "data": "aligned",
                "iterations": result.n_iter.tolist(),
                "contenders": entries,
            }
        )
    return rows


def _prepare(problem: Problem, too_slow: dict[str, str]) -> tuple[dict[str, dict], dict[str, Contender]]:
    """An entry of the results for every contender, and those that can run. The first calls measure errors."""
    exact = exact_gradients(problem)
    entries: dict[str, dict] = {"products": {}}
    ready = {"products": products(problem)}
    makers = {
        "mover": lambda problem: ours(problem, TOL),
        "mover, converged": lambda problem: ours(problem, 0.0),
        **transport_peers(),
    }
    for name, maker in makers.items():
        entry = entries[name] = {}
        if name in too_slow:
            entry["absent"] = too_slow[name]
            continue
        try:
            contender = maker(problem)
            forward_seconds, plan = timed(contender.plan)
        except Exception as failure:  # a peer that fails is a line of the table, not the end of the benchmark
            entry["absent"] = absent(failure)
            print(f"transport B={problem.rows}: {name}: {entry['absent']}", flush=True)
            continue
        entry["note"], entry["L1 error"], ready[name] = contender.note, l1_error(plan), contender
        try:
            both_seconds, found = timed(contender.gradients)
            entry["gradient error"] = relative_error(found, exact)
        except Exception as failure:
            entry["no gradient"] = absent(failure)
            continue
        if contender.compiles:
            entry["first calls, s"] = [forward_seconds, both_seconds]
    return entries, ready


def table(rows: list[dict]) -> str:
    """Markdown: a summary, then every contender at each batch size."""
    parts = [_summary(rows)]
    for row in rows:
        iterations = ", ".join(str(count) for count in row["iterations"])
        parts.append(f"## B = {row['B']}\n\nIterations of mover: {iterations}.\n\n{_contenders(row)}")
    return "\n\n".join(parts)


def _summary(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        for what in (FORWARD, BACKWARD):
            times = {name: entry[what]["ms"] for name, entry in row["contenders"].items() if what in entry}
            peers = {
                name: ms
                for name, ms in times.items()
                if name != "products"
                and not name.startswith("mover")
                and (what == FORWARD or row["contenders"][name]["gradient error"] < WRONG)
            }
            fastest = min(peers, key=peers.__getitem__, default=None)
            lines.append(
                [
                    str(row["B"]),
                    what,
                    digits(times["products"]),
                    digits(times["mover"]),
                    f"{times['mover'] / times['products']:.2f}",
                    f"{fastest} {digits(peers[fastest])}" if fastest else "",
                    f"{peers[fastest] / times['mover']:.1f}" if fastest else "",
                ]
            )
    head = ["B", "", "products, ms", "mover, ms", "mover / products", "fastest peer, ms", "fastest peer / mover"]
    return markdown(head, lines)


def _contenders(row: dict) -> str:
    lines = []
    for name, entry in row["contenders"].items():
        if "absent" in entry:
            lines.append([name, "", "", "", "", "", entry["absent"]])
            continue
        first = " + ".join(f"{seconds:.1f}" for seconds in entry.get("first calls, s", ()))
        lines.append(
            [
                name,
                milliseconds(entry.get(FORWARD)),
                milliseconds(entry.get(BACKWARD)),
                error(entry.get("L1 error")),
                error(entry.get("gradient error")),
                first,
                entry.get("no gradient", entry.get("note", "")),
            ]
        )
    head = ["", "forward, ms", "forward + backward, ms", "L1 error", "gradient error", "first calls, s", "note"]
    return markdown(head, lines)
