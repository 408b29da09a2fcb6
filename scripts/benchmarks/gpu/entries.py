"""One line of a table for each contender: times, memory and errors, or why there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from measure import absent, timed
from tables import error, figures
from tables import table as markdown

from gpu.clock import Clock, OutOfTime, Run

FORWARD, BACKWARD = "forward", "forward + backward"
GRAPH, GRAPH_BACKWARD = "forward, graph", "forward + backward, graph"
MEMORY, MEMORY_BACKWARD = "forward, MiB", "forward + backward, MiB"


@dataclass
class Contender:
    """Calls to be timed. `errors` measures other properties, by name."""

    forward: Run
    both: Run | None = None
    errors: Callable[[], dict[str, Any]] = dict
    compiles: bool = False  # the first calls compile
    capturable: bool = True  # as a CUDA graph: it never waits for the GPU
    separate: bool = False  # it uses streams and an allocator of its own
    note: str = ""


def measured(label: str, makers: dict[str, Callable[[], Contender]], clock: Clock) -> dict[str, dict]:
    """An entry for every contender. One that fails is a line of the table, not the end of the benchmark."""
    entries: dict[str, dict] = {}
    for name, make in makers.items():
        entry = entries[name] = {}
        try:
            clock.check_time()
            _measure(make(), entry, clock)
        except OutOfTime as over:
            entry.setdefault("absent", str(over))
        except Exception as failure:
            entry["absent"] = absent(failure)
        clock.free()
        print(f"{label}: {name} {_told(entry)}", flush=True)
    return entries


def _measure(contender: Contender, entry: dict, clock: Clock) -> None:
    entry["note"] = contender.note
    first = [timed(lambda: (contender.forward(), clock.wait()))[0]]
    parts = [(contender.forward, FORWARD, GRAPH, MEMORY)]
    if contender.both:
        try:
            first.append(timed(lambda: (contender.both(), clock.wait()))[0])
            parts.append((contender.both, BACKWARD, GRAPH_BACKWARD, MEMORY_BACKWARD))
        except Exception as failure:
            entry["no gradient"] = absent(failure)
    if contender.compiles:
        entry["first calls, s"] = first
    entry.update(contender.errors())
    for run, time, _, memory in parts:
        entry[time] = clock.times(run, contender.separate)
        if not contender.separate:
            entry[memory] = clock.peak_mebibytes(run)
    for run, _, time, _ in parts if contender.capturable else ():
        try:
            entry[time] = clock.times(clock.graph_of(run))
        except OutOfTime:
            raise
        except Exception as failure:
            entry["no graph"] = "as a CUDA graph: " + absent(failure)


def _told(entry: dict) -> str:
    times = [f"{what} {figures(entry[what]['ms'])} ms" for what in (FORWARD, BACKWARD, GRAPH) if what in entry]
    return ", ".join([*times, *(entry[key] for key in ("absent", "no gradient", "no graph") if key in entry)])


def table(
    entries: dict[str, dict], floors: tuple[float | None, float | None] = (None, None), columns: tuple[str, ...] = ()
) -> str:
    """Markdown of the entries of one problem. `floors`: milliseconds of forward and of forward + backward where they
    are known; `columns`: the other properties shown, where an entry has them."""
    columns = tuple(column for column in columns if any(column in entry for entry in entries.values()))
    lines = [["floor", figures(floors[0]), figures(floors[1]), *[""] * (5 + len(columns))]] if any(floors) else []
    for name, entry in entries.items():
        times = [figures(entry[what]["ms"]) if what in entry else "" for what in (FORWARD, BACKWARD, GRAPH)]
        times.append(figures(entry[GRAPH_BACKWARD]["ms"]) if GRAPH_BACKWARD in entry else "")
        memory = [f"{entry[what]:.0f}" if what in entry else "" for what in (MEMORY, MEMORY_BACKWARD)]
        remarks = [entry[key] for key in ("note", "absent", "no gradient", "no graph") if entry.get(key)]
        if "first calls, s" in entry:
            remarks.insert(0, "first calls " + " + ".join(f"{s:.1f}" for s in entry["first calls, s"]) + " s")
        lines.append([name, *times, *memory, *(_property(entry.get(c)) for c in columns), "; ".join(remarks)])
    head = ["", "forward, ms", "f + b, ms", "forward, graph", "f + b, graph", "forward, MiB", "f + b, MiB"]
    return markdown([*head, *columns, "note"], lines)


def _property(value: Any) -> str:
    return error(value) if isinstance(value, float) else "" if value is None else str(value)
