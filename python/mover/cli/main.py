"""`mover COMMAND …`: finds the command, turns errors of the user into one line and exit code 2.

Commands import what they need when they run, so that help comes at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from mover.cli.parser import Parser
from mover.errors import Problems, Told, UserError

COMMANDS = {
    "synth": "make a data set by rule: clips, or vectors",
    "import": "turn a public data set's annotations and media into a manifest",
    "doctor": "check a manifest's media, and note in it what is amiss",
    "derive": "a manifest from another: classes held out, captions exchanged, modalities taken away",
    "overlap": "tell whether two manifests share clips",
    "train": "train a model",
    "embed": "the embeddings of a split, by a checkpoint, in a file",
    "evaluate": "Recall@K of a run, a checkpoint or an embeddings file",
    "compare": "several systems on the same clips, with intervals of their differences",
    "analyze": "how an embedding space is laid out: classes, modalities, t-SNE",
    "experiment": "all runs of an experiment, its tables and figures",
    "classify": "classes from embeddings, by a linear probe and by the texts of classes",
    "report": "one HTML page of a run: numbers, curves, plans, what retrieval finds",
    "weights": "say what a file or folder of weights is, and whether it loads into a tower",
}
_MODULES = {"import": "mover.cli.import_data"}

_EXAMPLE = """\
the demo, from nothing to Recall@1:
  mover synth --out data/demo
  mover train --config demo
  mover evaluate --checkpoint runs/demo/checkpoints/best

mover COMMAND --help explains a command."""


if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # before torch is imported: DDP warns of what is meant to be so
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return the exit code.

    0: done. 1: `mover overlap` found something, `mover doctor` found clips that lack something, or `mover weights` says
    no. 2: an error of the user's, told in one line on standard error, or in one line for each of several. 130, 143:
    stopped by Ctrl-C, SIGTERM.
    """
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except Problems as error:
        problems = [" ".join(problem.split()) for problem in error.problems]
        head = "" if len(problems) == 1 else f"{len(problems)} things to put right:\n  "
        print(f"error: {head}" + "\n  ".join(problems), file=sys.stderr)
        return 2
    except Told:
        return 2
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away: nothing more to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(argv: list[str]) -> int:
    commands = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="mover",
        usage="mover [--help] [--version] COMMAND …",
        description="Train and evaluate joint embeddings of text, video and audio.",
        epilog=f"commands:\n{commands}\n\n{_EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mover {_version()}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", choices=list(COMMANDS), help=argparse.SUPPRESS)
    own = argv[:1]  # what follows the command is the command's
    command = parser.parse_args(own).command
    if command is None:
        parser.print_help()
        return 0
    module = importlib.import_module(_MODULES.get(command, f"mover.cli.{command}"))
    code: int = module.run(argv[1:])
    return code


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch-mover")
    except PackageNotFoundError:
        return "(not installed)"
