"""The tables of docs/scaling.md."""

from __future__ import annotations

import model
from tables import figures
from tables import table as markdown

GPUS, BATCHES = (8, 64, 512), (4096, 32768, 262144)
GB = 1e9


def tables(hardware: model.Hardware, records: model.Records, runs: list[model.Run], record: dict) -> dict[str, str]:
    """By the name of their markers."""
    rows = record["rows"]
    return {
        "memory": memory(hardware, records, runs),
        "squares": squares(hardware, records),
        "seconds": seconds(hardware, records, runs),
        "traffic": traffic(hardware, records),
        "epsilon": epsilon(rows["epsilon"]),
        "objective-check": objective_check(rows["objective"]),
        "solve-check": solve_check(rows["solve"], rows["exchange"]),
        "exchange-check": exchange_check(rows["exchange"]),
        "step-check": step_check(rows["step"], rows["exchange"]),
        "environment": measured(record),
    }


def measured(record: dict) -> str:
    """Where the parts were measured; those of the same place and commit together."""
    places: dict[str, list[str]] = {}
    for part, environment in record["environments"].items():
        places.setdefault(", ".join(f"{key} {value}" for key, value in environment.items()), []).append(part)
    if len(places) == 1:
        return f"Measured by `{record['command']}` on: {next(iter(places))}."
    lines = [f"- {', '.join(parts)}: {place}" for place, parts in places.items()]
    return "\n".join([f"Measured by `{record['command']}` on:", "", *lines])


def between(text: str, name: str, table: str) -> str:
    """The page with another table between its markers."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"docs/scaling.md has no markers {begin} … {end}")
    return f"{head}{begin}\n{table}\n{end}{tail}"


def _batch(run: model.Run) -> list[str]:
    return [f"{run.gpus}", f"{run.batch:,}", f"{run.clips:,}"]


def memory(hardware: model.Hardware, records: model.Records, runs: list[model.Run]) -> str:
    lines = []
    for run in runs:
        parts = [
            model.states(records, run, "ddp"), model.states(records, run, "fsdp"), model.inputs(run),
            model.activations(records, run), model.embeddings(run), model.objective(records, run),
        ]  # fmt: skip
        peaks = [model.peak(records, run, parallel) for parallel in ("ddp", "fsdp")]
        fits = ["fits" if peak <= hardware.memory else "no" for peak in peaks]
        lines.append([*_batch(run), *(figures(part / GB) for part in parts), *(figures(peak / GB) for peak in peaks),
                      fits[0] if len(set(fits)) == 1 else "with FSDP2"])  # fmt: skip
    head = ["GPUs", "clips a step", "of a GPU", "DDP", "FSDP2", "inputs", "activations", "embeddings", "objective",
            "peak, DDP", "peak, FSDP2", f"{figures(hardware.memory / GB)} GB"]  # fmt: skip
    return markdown(head, lines)


def seconds(hardware: model.Hardware, records: model.Records, runs: list[model.Run]) -> str:
    lines = []
    for run in runs:
        towers = model.towers_seconds(hardware, run)
        exchange = [model.exchange_seconds(hardware, records, run, parallel) for parallel in ("ddp", "fsdp")]
        rows = model.gather_seconds(hardware, run)
        solve = [model.solve_seconds(hardware, records, run, sharded) for sharded in (False, True)]
        rest = model.rest_seconds(records, run)
        step = towers + exchange[0] + rows + solve[1] + rest
        parts = {"towers": towers, "gradients": exchange[0], "objective": solve[1] + rest}
        lines.append([*_batch(run), *map(figures, [towers, *exchange, rows, *solve, rest, step]),
                      figures(run.batch / step), max(parts, key=lambda name: parts[name])])  # fmt: skip
    head = ["GPUs", "clips a step", "of a GPU", "towers", "DDP", "FSDP2", "gather", "solve, each all", "solve, by rows",
            "rest", "step", "clips a second", "most of it"]  # fmt: skip
    return markdown(head, lines)


def squares(hardware: model.Hardware, records: model.Records) -> str:
    """What one matrix takes, and the objective whole and by rows."""
    lines = []
    for batch in BATCHES:
        one = 4 * batch**2 / GB
        whole = model.objective(records, model.Run(8, batch)) / GB
        lines.append([f"{batch:,}", figures(one), figures(whole), *(figures(whole / gpus) for gpus in GPUS)])
    most = max(batch for batch in range(1024, 2**18, 1024)
               if model.objective(records, model.Run(8, batch)) <= hardware.memory / 2)  # fmt: skip
    note = (
        f"The objective's peak is {records.matrices:.1f} matrices and {records.per_clip / 1024:.0f} KiB a clip "
        f"(measured, below). It takes half of the memory at {most:,} clips."
    )
    head = ["clips a step", "one matrix", "objective", *(f"by rows, {gpus} GPUs" for gpus in GPUS)]
    return f"{markdown(head, lines)}\n\n{note}"


def traffic(hardware: model.Hardware, records: model.Records) -> str:
    """Bytes and seconds of every exchange, by the link that bounds it."""
    weights = 4 * model.parameters(records)
    links = {"NVLink, 8 GPUs": (8, hardware.nvlink), "400 Gb/s, 64": (64, 50e9), "100 Gb/s, 64": (64, 12.5e9)}
    what = [("gradients, DDP", "all-reduce", weights, 2.0), ("weights, FSDP2, each time", "all-gather", weights, 1.0)]
    for batch in BATCHES:
        size = model.MODALITIES * model.WIDTH * 4 * batch
        what.append((f"embeddings, {batch:,} clips", "all-gather", size, 1.0))
    for batch in BATCHES:
        what.append((f"a Sinkhorn iteration, {batch:,} clips", "all-reduce", 4 * model.PAIRS * (batch + 1), 2.0))
    lines = []
    for name, kind, size, times in what:
        cells = []
        for gpus, rate in links.values():
            link = model.Hardware(nvlink=rate, network=rate)
            cells.append(figures(1e3 * times * link.all_gather(size, gpus)))
        lines.append([name, kind, figures(size / 1e6), *cells])
    return markdown(["", "", "MB", *(f"{name}, ms" for name in links)], lines)


def epsilon(rows: list[dict]) -> str:
    """How much of a row's mass goes to its partner, in how many iterations, and what `partner_share` says of more."""
    batches = sorted({row["clips"] for row in rows})
    larger = [batch for batch in BATCHES if batch > batches[-1]]
    lines = []
    for value in dict.fromkeys(row["epsilon"] for row in rows):
        same = {row["clips"]: row for row in rows if row["epsilon"] == value}
        said = [f"{100 * model.partner_share(value, batch):.0f}" for batch in batches + larger]
        shares = [f"{100 * same[batch]['share']:.0f} ({one})" for batch, one in zip(batches, said, strict=False)]
        counts = [f"{same[batch]['iterations']}, {same[batch]['by rows']}" for batch in batches]
        lines.append([f"{value:g}", *shares, *(f"({one})" for one in said[len(batches) :]), *counts])
    head = ["epsilon", *(f"{batch:,} clips, %" for batch in batches + larger),
            *(f"iterations, {batch:,}" for batch in batches)]  # fmt: skip
    return markdown(head, lines)


# ---- what was measured, and what the model says ----------------------------------------------------------------------


def objective_check(rows: list[dict]) -> str:
    """Memory and time at each size; what the two sizes before say of its memory, and half the clips of its time."""
    found = {(row["objective"], row["batch"]): row for row in rows}
    lines = []
    for (name, batch), row in found.items():
        half, quarter = found.get((name, batch // 2)), found.get((name, batch // 4))
        said, matrices = "", ""
        if half is not None:
            many, each = model.peak_by(half, row)
            matrices = f"{many:.1f}, {each / 1024:.0f}"
        if half is not None and quarter is not None:
            many, each = model.peak_by(quarter, half)
            said = figures((many * 4 * batch**2 + each * batch) / 2**20)
        cells = [name, f"{batch:,}", figures(row["peak"]), said, matrices, figures(row["CPU s"]),
                 "" if half is None else figures(4 * half["CPU s"])]  # fmt: skip
        lines.append(cells)
    head = ["objective", "clips", "MiB", "by the two before", "matrices, KiB a clip", "CPU s", "by half the clips"]
    return markdown(head, lines)


def solve_check(rows: list[dict], exchanges: list[dict]) -> str:
    """Times by rows: of two processes from those of one and of gloo."""
    found = {(row["batch"], row["processes"]): row for row in rows}
    lines = []
    for (batch, processes), row in found.items():
        if processes == 1:
            half = found.get((batch // 2, 1))
            expected = None if half is None else 4 * half["s"]
        else:
            reduce = fit([one for one in exchanges if one["processes"] == processes], "all_reduce")
            exchanged = 21 * reduce(4 * (batch + 1)) + reduce(8 * (2 * batch + 3))
            expected = found[batch, 1]["s"] / processes + exchanged
        operator = figures(1e3 * row["operator"]) if "operator" in row else ""
        lines.append([f"{batch:,}", f"{processes}", figures(1e3 * row["s"]),
                      "" if expected is None else figures(1e3 * expected), operator])  # fmt: skip
    return markdown(["clips", "processes", "ms", "by the model", "the operator, one process"], lines)


LARGE = 1 << 24  # bytes


def fit(rows: list[dict], what: str):
    """Latency and rate from the smallest exchange and that of LARGE bytes: bytes → seconds."""
    small, large = min(rows, key=lambda row: row["bytes"]), next(row for row in rows if row["bytes"] == LARGE)
    slope = (large[what] - small[what]) / (large["bytes"] - small["bytes"])
    return lambda size: small[what] + slope * max(0, size - small["bytes"])


def exchange_check(rows: list[dict]) -> str:
    """gloo's exchanges, and what latency and rate make of those between."""
    lines = []
    for row in rows:
        same = [one for one in rows if one["processes"] == row["processes"]]
        ends = {min(one["bytes"] for one in same), LARGE}
        cells = []
        for what in ("all_reduce", "all_gather"):
            cells += [figures(1e3 * row[what]), "" if row["bytes"] in ends else figures(
                1e3 * fit(same, what)(row["bytes"]))]  # fmt: skip
        count, kilobytes = row["processes"], row["bytes"] / 1024
        ring = 2 * (count - 1) / count * row["bytes"] / row["all_reduce"] / GB
        lines.append([f"{count}", f"{kilobytes:,.0f}", *cells, figures(ring)])
    head = ["processes", "KiB", "all-reduce, ms", "by the model", "all-gather, ms", "by the model",
            "all-reduce, GB/s around the ring"]  # fmt: skip
    return markdown(head, lines)


def step_check(rows: list[dict], exchanges: list[dict]) -> str:
    """Steps of one and of two processes, from the two smallest steps of one process."""
    predicted = step_model(rows, exchanges)
    lines = []
    for row, said in zip(rows, predicted, strict=True):
        lines.append([f"{row['processes']}", f"{row['batch']:,}", figures(1e3 * row["s"]),
                      "" if said is None else figures(1e3 * said),
                      "" if said is None else f"{100 * (said / row['s'] - 1):+.0f} %"])  # fmt: skip
    return markdown(["processes", "clips a step", "ms", "by the model", "off by"], lines)


def step_model(rows: list[dict], exchanges: list[dict]) -> list[float | None]:
    """Seconds of every step but the two that the model is made of.

    A process takes a time of its own and one for each of its clips, the objective of the whole batch, and two exchanges
    if it has company: of the embeddings, and of the gradients.
    """
    small, large = sorted((row for row in rows if row["processes"] == 1), key=lambda row: row["batch"])[:2]
    towers = lambda row: row["s"] - row["objective"]  # noqa: E731
    each = (towers(large) - towers(small)) / (large["batch"] - small["batch"])
    own = towers(small) - each * small["batch"]
    said: list[float | None] = []
    for row in rows:
        if row is small or row is large:
            said.append(None)
            continue
        exchanged = 0.0
        if row["processes"] > 1:
            same = [one for one in exchanges if one["processes"] == row["processes"]]
            gathered = 4 * model.MODALITIES * row["width"] * row["batch"]
            exchanged = fit(same, "all_gather")(gathered) + fit(same, "all_reduce")(4 * row["parameters"])
        said.append(own + each * row["batch"] / row["processes"] + row["objective"] + exchanged)
    return said
