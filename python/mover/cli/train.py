"""`mover train`: a configuration, and settings on top of it, to a run folder."""

from __future__ import annotations

from collections.abc import Sequence

from mover.cli.parser import Parser, add_config_option, add_settings, parse_settings

_DESCRIPTION = """\
Train a model. Settings come from the YAML file that --config names, then from the options below.

  mover train --config demo
  mover train --config demo --name gram --objective.preset gram --train.steps 100
  mover train --config runs/demo/config.yaml --resume

Results go to <output>/<name>: config.yaml, log.jsonl, checkpoints/last and checkpoints/best, curves.png, plan.png.
Ctrl-C or SIGTERM finishes the step, writes a checkpoint and says how to go on; a second one quits at once."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = Parser(
        prog="mover train", description=_DESCRIPTION,
        usage="mover train [--config NAME|FILE] [--resume | --overwrite] [--SECTION.SETTING VALUE …]",
    )  # fmt: skip
    add_config_option(parser)
    parser.add_argument("--resume", action="store_true", help="go on from checkpoints/last of the run")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    add_settings(parser, argv)
    options, config = parse_settings(parser, argv)

    from mover.train.trainer import train

    outcome = train(config, resume=options.resume, overwrite=options.overwrite)
    return 0 if outcome.signum is None else 128 + outcome.signum
