"""Plans of all pairs of k modalities on a GPU, forward and forward + backward of sum(plan * W)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from peers import compiled, eager, geomloss, ott, pot
from problems import Problem, exact_gradients, gradients, l1_error, make, relative_error
from tables import figures

import mover.ops
from gpu import rates
from gpu.clock import Clock, OutOfTime
from gpu.entries import Contender, measured
from gpu.entries import table as contenders_table

DESCRIPTION = """Plans of all pairs of k modalities, forward and forward + backward of sum(plan * W), in float32.

"products" are torch's own matrix products, in float32 and in TF32: x yT, and in the backward the two that gradients of
x and y take. A fixed number of full iterations: all take just so many, without a test; "plan error" is relative,
against `mover` in float64 after as many; "forward / plan" is the peak memory over that of the plans, "backward / plan"
the same for the backward alone. To an L1 error of the marginals: every peer by its own means, as in
`scripts/benchmarks/peers`; "gradient error" is relative, against the exact one in float64. The floor is one read of the
costs for every full iteration, and the products in three times the time of TF32. Data "aligned" unless said otherwise:
y = normalise(x / 2 + n), n ~ N(0, I / d); all pairs are drawn alike."""

TOL = 1e-3
EXACT = 2048  # rows up to which gradients are compared with exact ones
PLAN_EXACT = 4096
Maker = Callable[[], Contender]


@dataclass(frozen=True)
class Setting:
    """`iterations` full ones, or None: to an L1 error of TOL."""

    rows: int
    width: int = 512
    k: int = 3
    epsilon: float = 0.1
    iterations: int | None = 10
    compile: bool = False

    @property
    def pairs(self) -> int:
        return rates.pair_count(self.k)

    @property
    def title(self) -> str:
        mode = f"{self.iterations} full iterations" if self.iterations else f"to an L1 error of {TOL:g}"
        return f"B = {self.rows}, k = {self.k}, d = {self.width}, epsilon {self.epsilon:g}, {mode}"


QUICK = [Setting(1024), Setting(4096), Setting(1024, iterations=None)]
DEFAULT = [
    *(Setting(rows, compile=rows in (256, 2048)) for rows in (1024, 2048, 4096, 8192, 64, 256)),
    *(Setting(rows, iterations=None) for rows in (1024, 256, 4096)),
    *(Setting(rows, iterations=100) for rows in (1024, 4096)),
    *(Setting(1024, k=k) for k in (2, 5)),
    *(Setting(1024, width=width) for width in (256, 1024)),
    *(Setting(1024, epsilon=0.05, iterations=iterations) for iterations in (10, None)),
]
FULL = [
    Setting(rows, width, k, epsilon, iterations, compile=(k, width, epsilon) == (3, 512, 0.1))
    for iterations in (10, 100, None)
    for k in (3, 2, 5)
    for width in (512, 256, 1024)
    for epsilon in (0.1, 0.05)
    for rows in (64, 256, 1024, 2048, 4096, 8192)
]
PLANS = {"quick": QUICK, "default": DEFAULT, "full": FULL}


def run(plan: str, clock: Clock) -> list[dict]:
    """One row for each setting, and a last one for the time of a single iteration."""
    rows = []
    for setting in PLANS[plan]:
        problem = make("aligned", setting.rows, setting.width, setting.pairs, setting.epsilon, TOL).to(clock.device)
        entries = measured(f"transport {setting.title}", contenders(problem, setting, clock), clock)
        rows.append({**asdict(setting), "pairs": setting.pairs, "contenders": entries})
        del problem
        clock.free()
    return [*rows, per_iteration(clock)]


def per_iteration(clock: Clock, rows: int = 1000, width: int = 784, few: int = 10, many: int = 110) -> dict:
    """Milliseconds of one full iteration of one pair, from the difference of two numbers of them."""
    problem = make("random", rows, width, 1, 0.05, TOL).to(clock.device)
    times, counts = [], []
    milliseconds = None
    try:
        for iterations in (few, many):
            run = lambda iterations=iterations: _solve(problem, 0.0, iterations, "sinkhorn")  # noqa: E731
            counts.append(int(run().n_iter))
            times.append(clock.times(clock.graph_of(run))["ms"])
        if counts[1] > counts[0]:
            milliseconds = (times[1] - times[0]) / (counts[1] - counts[0])
    except OutOfTime:
        print("transport: no time was left for a single iteration", flush=True)
    return {"rows": rows, "width": width, "k": 2, "iteration, ms": milliseconds, "iterations": counts, "ms": times}


def _solve(problem: Problem, tol: float, most: int, solver: str = "auto", precision: str = "float32"):
    return mover.ops.transport(
        problem.x, problem.y, epsilon=problem.epsilon, max_iter=most, tol=tol, solver=solver, precision=precision
    )


def contenders(problem: Problem, setting: Setting, clock: Clock) -> dict[str, Maker]:
    ours = {
        "products, float32": lambda: _products(problem, False),
        "products, TF32": lambda: _products(problem, True),
        "mover": lambda: _ours(problem, setting, "float32", clock),
    }
    if problem.x.device.type == "cuda":
        ours["mover, TF32"] = lambda: _ours(problem, setting, "tf32", clock)
    count = setting.iterations
    makers = {
        "eager torch, pair loop": (eager.loop if count is None else lambda p: eager.fixed(p, count), count is not None),
        "eager torch, batched": (lambda p: eager.batched(p, count), count is not None),
    }
    if setting.compile:
        makers["torch.compile, pair loop"] = (lambda p: compiled.loop(p, count), True)
    if count is None:
        makers |= {
            "POT": (pot.loop, False),
            "POT batch": (pot.batch, False),
            "GeomLoss SamplesLoss": (geomloss.samples_loss, False),
            "geomloss.ot": (geomloss.solve, False),
            "OTT, unrolled": (ott.unrolled, False),
            "OTT, implicit": (ott.implicit, False),
        }
    peers = {
        name: lambda name=name, maker=maker, capturable=capturable: _peer(name, maker, capturable, problem, setting)
        for name, (maker, capturable) in makers.items()
    }
    return {**ours, **peers}


def _products(problem: Problem, tf32: bool) -> Contender:
    def allowing(call: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            before = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = tf32
            try:
                return call()
            finally:
                torch.backends.cuda.matmul.allow_tf32 = before

        return run

    x, y, weight = problem.x, problem.y, problem.weight
    return Contender(allowing(lambda: x @ y.mT), allowing(lambda: (x @ y.mT, weight @ y, weight.mT @ x)))


def _ours(problem: Problem, setting: Setting, precision: str, clock: Clock) -> Contender:
    if setting.iterations is None:
        tol, most, solver = TOL, 1000, "auto"
    else:
        tol, most, solver = 0.0, setting.iterations, "sinkhorn"

    def plan(x, y):
        return mover.ops.transport(
            x, y, epsilon=problem.epsilon, max_iter=most, tol=tol, solver=solver, precision=precision
        ).plan

    def errors() -> dict:
        result = _solve(problem, tol, most, solver, precision)
        found = {"L1 error": l1_error(result.plan), "iterations": max(result.n_iter.tolist())}
        del result
        found |= _accuracy(plan(problem.x, problem.y), lambda: gradients(plan, problem), problem, setting)
        forward = clock.peak_mebibytes(lambda: plan(problem.x, problem.y))
        leaves = [tensor.detach().requires_grad_() for tensor in (problem.x, problem.y)]
        kept = plan(*leaves)
        backward = clock.peak_mebibytes(lambda: torch.autograd.grad(kept, leaves, problem.weight, retain_graph=True))
        matrix = rates.FLOAT * setting.pairs * setting.rows**2 / 2**20
        return found | {"forward / plan": round(forward / matrix, 3), "backward / plan": round(backward / matrix, 3)}

    return Contender(lambda: plan(problem.x, problem.y), lambda: gradients(plan, problem), errors)


def _peer(name: str, maker: Callable, capturable: bool, problem: Problem, setting: Setting) -> Contender:
    peer = maker(problem)
    return Contender(
        peer.plan,
        peer.gradients,
        lambda: {"L1 error": l1_error(plan := peer.plan()), **_accuracy(plan, peer.gradients, problem, setting)},
        compiles=peer.compiles,
        capturable=capturable and problem.x.device.type == "cuda",
        separate=name.startswith("OTT"),
        note=peer.note,
    )


def _accuracy(plan, gradients_of: Callable, problem: Problem, setting: Setting) -> dict[str, float]:
    """Errors of the plan after a fixed number of iterations, of the gradient where an error is to be reached."""
    if setting.iterations is not None:
        if setting.rows > PLAN_EXACT:
            return {}
        exact = _solve(problem.double(), 0.0, setting.iterations, "sinkhorn").plan
        return {"plan error": relative_error((plan,), (exact,))}
    if setting.rows > EXACT:
        return {}
    return {"gradient error": relative_error(gradients_of(), exact_gradients(problem))}


def table(rows: list[dict], measured_rates: rates.Rates) -> str:
    """Markdown: the contenders of every setting."""
    parts = []
    for row in rows:
        if "contenders" not in row:
            parts.append(
                f"One full iteration, n = {row['rows']}, d = {row['width']}, one pair: "
                f"{figures(row['iteration, ms'])} ms."
            )
            continue
        setting = Setting(**{key: row[key] for key in Setting.__dataclass_fields__})
        iterations = setting.iterations or row["contenders"].get("mover", {}).get("iterations", 0)
        floor = rates.transport(measured_rates, setting.rows, setting.width, setting.pairs, iterations, "3xtf32")
        columns = ("L1 error", "plan error", "gradient error", "iterations", "forward / plan", "backward / plan")
        parts.append(f"## {setting.title}\n\n{contenders_table(row['contenders'], (floor, None), columns)}")
    return "\n\n".join(parts)
