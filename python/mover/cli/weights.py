"""`mover weights`: what a file or folder of weights is, and whether it loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mover.cli.parser import Parser

_DESCRIPTION = """\
Say what files or folders of weights are, and whether they load into a tower: every parameter, or not at all. Weights
are loaded to find out, on the CPU; nothing is downloaded or changed.

  mover weights checkpoints/roberta-base
  mover weights checkpoints/*

What the towers take, all of it on this machine:
  text    a folder of RoBERTa: config.json and model.safetensors (or pytorch_model.bin), and its tokenizer.json
  video   a folder of ViT: the same, and preprocessor_config.json with the mean and deviation of its images
  audio   an official BEATs file: BEATs_iter3_plus_AS2M.pt or another of its family

Exit code 0: everything loads. 1: something does not. 2: there is nothing at a path."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = Parser(prog="mover weights", description=_DESCRIPTION, usage="mover weights PATH …")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="file or folder of a checkpoint")
    options = parser.parse_args(list(argv))

    from mover.models.inspection import inspect

    every = True
    for path in options.paths:
        report = inspect(path)
        print(path)
        for label, text in report.facts.items():
            print(f"  {label:<11}{text}")
        if report.tower is None:
            every = False
            print(f"  {'loads':<11}no. {report.problem}")
        else:
            print(f"  {'loads':<11}yes, into the {report.tower} tower: --model.{report.tower}.checkpoint {path}")
    return 0 if every else 1
