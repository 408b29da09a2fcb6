"""`mover experiment`: sets of runs that answer a question, their tables and figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mover.cli.parser import Parser, add_config_option, add_settings, given_settings, non_negative, positive

if TYPE_CHECKING:
    from mover.experiments.definition import Definition
    from mover.experiments.plan import Run

_DESCRIPTION = """\
Make all runs of an experiment, and the tables and figures that answer its question. Without a name, list the
experiments.

  mover experiment
  mover experiment mover-sets --dry-run
  mover experiment mover-sets --parallel 2
  mover experiment mover-sets --only transport --seeds 1 train.steps=100 output=/tmp/trial
  mover experiment mover-sets --table --docs docs/experiments.md

Each variant and seed is a run of its own, <output>/<experiment>/<variant>/seed-N, trained and evaluated as by
`mover train` and `mover evaluate`. What is complete is left as it is, what was interrupted goes on from its checkpoint,
so the same command continues an experiment that was stopped. A run that another experiment has made with equal settings
is not trained again, but evaluated. Results go to <output>/<experiment>: results.json,
results.md and figures. <output> is runs/experiments, or output=FOLDER.

Any setting of a run (mover train --help) that the experiment does not vary can be given, for all runs:
section.setting=value.

Exit code 0: all runs are complete; 1: some failed; 130, 143: stopped by Ctrl-C, SIGTERM."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = _parser(argv)
    options, settings = given_settings(parser, argv)

    from mover.experiments.definition import load_definition, shipped_experiments

    if options.experiment is None:
        names = shipped_experiments()
        width = max(map(len, names))
        for name in names:
            print(f"{name:<{width}}  {load_definition(name).title}")
        return 0
    definition = load_definition(options.experiment)

    from mover.experiments.docs import check_page
    from mover.experiments.plan import filled, plan_runs

    definition = filled(definition, options.config, settings)
    if options.docs is not None:
        check_page(options.docs, definition.name)
    runs = plan_runs(
        definition, config=options.config, overrides=settings, seeds=options.seeds, first_seed=options.first_seed,
        only=options.only,
    )  # fmt: skip
    if options.dry_run:
        return _list(definition, runs)
    code = 0 if options.table else _make(definition, runs, options)
    _conclude(definition, runs, options, settings)
    return code


def _make(definition: Definition, runs: list[Run], options: argparse.Namespace) -> int:
    from rich.console import Console

    from mover.experiments.data import check_zero_shot, prepare
    from mover.experiments.runner import make_runs

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"{definition.name}: {definition.title}. {len(runs)} runs")
    prepare(definition, runs, say)
    check_zero_shot(definition, runs)
    sweep = make_runs(definition, runs, parallel=options.parallel, overwrite=options.overwrite, console=console)
    if sweep.signum is not None:
        say("stopped; the same command goes on.")
        return 128 + sweep.signum
    if sweep.failed:
        say(f"{len(sweep.failed)} of {len(runs)} runs are not complete; the same command tries them again.")
    return 1 if sweep.failed else 0


def _list(definition: Definition, runs: list[Run]) -> int:
    """What would be done."""
    from mover.experiments.data import needed
    from mover.experiments.record import state_of
    from mover.experiments.reuse import find_equal

    for commands in needed(definition, runs).values():
        print("\n".join(f"$ {command}" for command in commands))
    width = max(len(run.name) for run in runs)
    for run in runs:
        state, changed = state_of(run)
        start = f", starts from {', '.join(start.name for start in run.starts)}" if run.starts else ""
        equal = find_equal(run) if state in ("new", "other settings") else None
        taken = "" if equal is None else f", trained as {'/'.join(equal.parts[-3:])}"
        print(
            f"{run.name:<{width}}  {run.config.train.steps} steps{start}: "
            f"{state}{f' ({changed})' if changed else ''}{taken}"
        )
    return 0


def _conclude(definition: Definition, runs: list[Run], options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Write results.json, results.md, figures and, where asked for, the page of the documentation."""
    from mover.durable_file import durable_file
    from mover.experiments.docs import write_docs
    from mover.experiments.figures import draw_figures
    from mover.experiments.results import gather
    from mover.experiments.tables import markdown, tables

    found = gather(definition, runs, options.config or definition.config, settings)
    folder = runs[0].config.output.parent
    drawn = draw_figures(found, folder)
    for name, text in {
        "results.json": json.dumps(found, indent=1) + "\n",
        "results.md": f"# {definition.title}\n\n{definition.asks.strip()}\n\n{markdown(found, drawn)}",
    }.items():
        with durable_file(folder / name) as file:
            file.write(text.encode("utf-8"))
    print("\n\n".join(tables(found)))
    if found["absent"]:
        print(f"not complete: {len(found['absent'])} of {len(runs)} runs")
    print(f"written to {folder}: results.json, results.md{''.join(f', {name}' for name in drawn)}")
    if options.docs is not None:
        print("\n".join(f"written to {path}" for path in write_docs(options.docs, found)))


def _parser(argv: Sequence[str]) -> Parser:
    parser = Parser(
        prog="mover experiment", description=_DESCRIPTION,
        usage="mover experiment [NAME|FILE] [OPTION …] [SECTION.SETTING=VALUE …]",
    )  # fmt: skip
    parser.add_argument("experiment", nargs="?", metavar="NAME|FILE", help="a shipped experiment or a YAML file")
    add_config_option(parser)
    which = parser.add_argument_group("which runs")
    which.add_argument(
        "--only", nargs="+", default=[], metavar="VARIANT", help="these variants, and those that they start from"
    )
    which.add_argument("--seeds", type=positive, metavar="INT", help="runs of each variant [the experiment's]")
    which.add_argument("--first-seed", type=non_negative, default=0, metavar="INT", help="of these [0]")
    how = parser.add_argument_group("how")
    how.add_argument("--parallel", type=positive, default=1, metavar="INT", help="runs at once [1]")
    how.add_argument("--overwrite", action="store_true", help="replace runs that were made with other settings")
    how.add_argument("--dry-run", action="store_true", help="list the runs and how far they are, and stop")
    how.add_argument("--table", action="store_true", help="make no runs; write the tables of those that are complete")
    how.add_argument(
        "--docs", type=Path, metavar="FILE", help="put the tables into this page, where it has a place for them"
    )
    add_settings(parser, argv, shown=False)
    return parser
