"""The goals on a GPU against what was measured, and the floors: docs/results/cuda.md, from the stored records."""

from __future__ import annotations

from dataclasses import dataclass

from tables import figures
from tables import table as markdown

from gpu import rates
from gpu.entries import BACKWARD, FORWARD, GRAPH, GRAPH_BACKWARD
from gpu.rates import Rates

Records = dict[str, dict]  # name of the benchmark -> its record
SIZES = (64, 256, 512, 1024, 2048, 4096, 8192)
TRANSPORT_GOALS = {  # B -> milliseconds of ten full iterations and the products, float32 and TF32
    1024: (0.15, 0.12),
    2048: (0.45, 0.35),
    4096: (1.6, 1.2),
    8192: (6.0, 5.0),
}
TRIPLE_GOALS = {512: 0.3, 1024: 2.0}
EAGER_RATIO, PRODUCT_RATIO, FLASH_RATIO = 10.0, 1.5, 10.0
FLASH_ITERATION = 0.54  # milliseconds of an iteration that FlashSinkhorn published for n = 1000, d = 784
LITTLE = 0.125  # of a matrix: what memory of the order of B may come to at B = 4096

INTRODUCTION = """# CUDA

What the CUDA backend is meant to reach, and what it was measured to. The goals were set for an H200. "Measured" is the
median time as a CUDA graph, "one call" that of a call from Python; both by events, with the L2 cache flushed before.
The floor is arithmetic: bytes over bandwidth, products over their rate; float32 products count as three of TF32. At
B = 2048 and below the costs of a pair are taken to stay in the L2 cache."""

UNMEASURED = """**No GPU measurement was made yet.** The cells are empty, and the floors are those of an H200: copies at
4.3 TB/s as measured on one, 395 TFLOP/s in TF32, half of what it was measured to reach in bfloat16, 67 TFLOP/s in
float32 by its data sheet, an L2 cache of 6 TB/s assumed. `scripts/gpu-check`, or `scripts/bench --device cuda`, fills
the table on a machine with a GPU."""


@dataclass(frozen=True)
class Line:
    """A goal. `measured` and `call` are milliseconds or ratios, None where there are none."""

    what: str
    goal: float
    floor: float | None = None
    measured: float | None = None
    call: float | None = None
    at_least: bool = False  # the goal is a lower bound
    unit: str = "ms"

    @property
    def reached(self) -> str:
        if self.measured is None:
            return ""
        enough = self.measured >= self.goal if self.at_least else self.measured <= self.goal
        return "yes" if enough else "no"

    def cells(self) -> list[str]:
        bound = "≥" if self.at_least else "≤"
        texts = [figures(value) for value in (self.floor, self.measured, self.call)]
        return [self.what, f"{bound} {self.goal:g} {self.unit}".strip(), *texts, self.reached]


def lines(records: Records, floors: Rates) -> list[Line]:
    """The goals, in the order of the table."""
    return [
        *_transport(records, floors),
        *_triples(records, floors),
        _scores(records),
        _eager(records),
        *_memory(records),
    ]


def _transport(records: Records, floors: Rates) -> list[Line]:
    found = []
    for index, (name, precision, text) in enumerate(
        (("mover", "3xtf32", ""), ("mover, TF32", "tf32", ", TF32 by name"))
    ):
        for rows, goals in TRANSPORT_GOALS.items():
            row = _row(records, "transport", rows=rows, width=512, k=3, epsilon=0.1, iterations=10)
            found.append(
                Line(
                    f"transport, k = 3, d = 512, ten full iterations and the products, B = {rows}{text}",
                    goals[index],
                    rates.transport(floors, rows, 512, 3, 10, precision),
                    _time(row, name, GRAPH),
                    _time(row, name, FORWARD),
                )
            )
    single = _row(records, "transport", rows=1000, width=784, k=2)
    found.append(
        Line(
            "one full iteration, one pair, n = 1000, d = 784 (a tenth of FlashSinkhorn's published .54 ms)",
            FLASH_ITERATION / FLASH_RATIO,
            rates.iteration(floors, 1000, 1, cached=True),
            single.get("iteration, ms") if single else None,
        )
    )
    return found


def _triples(records: Records, floors: Rates) -> list[Line]:
    return [
        Line(
            f"expected_volume with all gradients, B = {rows}",
            goal,
            rates.triples(floors, rows, gradients=True),
            _time(row := _row(records, "triples", rows=rows), "mover", GRAPH_BACKWARD),
            _time(row, "mover", BACKWARD),
        )
        for rows, goal in TRIPLE_GOALS.items()
    ]


def _scores(records: Records) -> Line:
    row = _row(records, "contrast", rows=4096, k=3, width=512)
    ratios = [
        _ratio(_time(row, "volume_scores", what), _time(row, "products", what)) for what in (GRAPH_BACKWARD, BACKWARD)
    ]
    return Line("volume_scores, forward + backward, N = 4096, over its products", PRODUCT_RATIO, 1.0, *ratios, unit="x")


def _eager(records: Records) -> Line:
    """The least ratio over all sizes: the fastest way in eager torch over mover."""
    graphs, calls = [], []
    for name in ("transport", "triples", "contrast"):
        for row in records.get(name, {}).get("rows", ()):
            for forward, graph in ((FORWARD, GRAPH), (BACKWARD, GRAPH_BACKWARD)):
                eager = [key for key in row.get("contenders", ()) if "eager" in key or "stacked" in key]
                for times, what in ((calls, forward), (graphs, graph)):
                    best = [_time(row, key, what) for key in eager]
                    ratio = _ratio(min((ms for ms in best if ms is not None), default=None), _time(row, "mover", what))
                    if ratio is not None:
                        times.append(ratio)
    least = [min(times, default=None) for times in (graphs, calls)]
    return Line(
        "the fastest of eager torch over mover, the least over all sizes",
        EAGER_RATIO,
        None,
        *least,
        at_least=True,
        unit="x",
    )


def _memory(records: Records) -> list[Line]:
    row = _row(records, "transport", rows=4096, width=512, k=3, epsilon=0.1, iterations=10)
    entry = (row or {}).get("contenders", {}).get("mover", {})
    what = "memory of transport's {} at B = 4096, in plans"
    return [
        Line(what.format("forward"), 2 + LITTLE, 2.0, entry.get("forward / plan"), unit=""),
        Line(what.format("backward"), 1 + LITTLE, 1.0, entry.get("backward / plan"), unit=""),
    ]


def _row(records: Records, name: str, **wanted: object) -> dict | None:
    for row in records.get(name, {}).get("rows", ()):
        if all(row.get(key) == value for key, value in wanted.items()):
            return row
    return None


def _time(row: dict | None, contender: str, what: str) -> float | None:
    times = (row or {}).get("contenders", {}).get(contender, {}).get(what)
    return times["ms"] if times else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def floors_table(floors: Rates) -> str:
    """Markdown: k = 3, d = 512, in microseconds."""
    rows = []
    for size in SIZES:
        flops = rates.product_flops(size, 512, 3)
        precisions = ("tf32", "3xtf32", "float32")
        products = [figures(1e3 * floors.products(flops, precision)) for precision in precisions]
        whole = [figures(1e3 * rates.transport(floors, size, 512, 3, 10, precision)) for precision in precisions]
        iterations = [figures(1e3 * rates.iteration(floors, size, 3, cached)) for cached in (False, True)]
        rows.append([str(size), *(" / ".join(cells) for cells in (products, iterations, whole))])
    head = [
        "B",
        "products: TF32 / 3xTF32 / float32, us",
        "one iteration: memory / L2, us",
        "ten and the products: TF32 / 3xTF32 / float32, us",
    ]
    return markdown(head, rows)


def render(records: Records) -> str:
    """The whole page. The rates of the last record are the measured ones."""
    measured = next((record["rates"] for record in reversed(records.values()) if record.get("rates")), None)
    floors = Rates(**measured) if measured else rates.H200
    head = ["", "goal", "floor", "measured", "one call", "reached"]
    parts = [INTRODUCTION]
    if not records:
        parts.append(UNMEASURED)
    parts.append(markdown(head, [line.cells() for line in lines(records, floors)]))
    if records:
        environment = next(iter(records.values()))["environment"]
        files = ", ".join(f"[{name}]({name}-cuda.md)" for name in records)
        parts.append(
            f"Measured on: {', '.join(f'{key} {value}' for key, value in environment.items())}. Tables: {files}."
        )
        parts.append("Rates, measured: " + rates_text(floors) + ".")
    parts.append(f"## Floors\n\nk = 3, d = 512.\n\n{floors_table(floors)}")
    parts.append("Rendered by `scripts/bench --device cuda --table-only`.")
    return "\n\n".join(parts) + "\n"


def rates_text(measured: Rates) -> str:
    return (
        f"copies {measured.memory / 1e12:.2f} TB/s, within the L2 cache ({measured.cache_bytes / 2**20:.0f} MiB) "
        f"{measured.cache / 1e12:.2f} TB/s, products {measured.float32 / 1e12:.1f} TFLOP/s in float32 and "
        f"{measured.tf32 / 1e12:.0f} in TF32"
    )
