"""`mover train`: a configuration, and settings on top of it, to a run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mover.cli.parser import Parser, add_config_option, add_settings, parse_settings
from mover.configs import config_text, find_config

_DESCRIPTION = """\
Train a model. Settings come from the YAML file that --config names, then from the command line, where
section.setting=value and --section.setting value are the same. Before anything slow the resolved configuration is
printed and all paths are checked.

  mover train --config demo
  mover train --config demo name=gram objective.preset=gram train.steps=100
  mover train --config msrvtt --check
  mover train --config runs/demo/config.yaml --resume

On several GPUs or machines (docs/scaling.md), each step the whole train.batch_size:

  torchrun --standalone --nproc-per-node 8 scripts/train.py --config msrvtt

Results go to <output>/<name>: config.yaml, log.jsonl, checkpoints/last and checkpoints/best, curves.png, plan.png,
plans.
Ctrl-C or SIGTERM finishes the step, writes a checkpoint and says how to go on; a second one quits at once."""


def run(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = Parser(
        prog="mover train", description=_DESCRIPTION,
        usage="mover train [--config NAME|FILE] [--resume | --overwrite] [--check] [SECTION.SETTING=VALUE …]",
    )  # fmt: skip
    add_config_option(parser)
    parser.add_argument("--resume", action="store_true", help="go on from checkpoints/last of the run")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    parser.add_argument("--check", action="store_true", help="check everything, say what was found, and stop")
    add_settings(parser, argv)
    options, config = parse_settings(parser, argv)
    source = None if options.config is None else find_config(options.config)
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started, one tells
        print(config_text(config, source, vars(options)), flush=True)

    if options.check:
        from mover.distributed.world import World
        from mover.train.checks import check_run

        ready = check_run(config, resume=options.resume, overwrite=options.overwrite, world=World.announced())
        print("checked, and nothing stands in the way:")
        for setting, text in ready.findings.items():
            print(f"  {setting:<24} {text}")
        return 0

    from mover.train.trainer import train

    outcome = train(config, resume=options.resume, overwrite=options.overwrite)
    return 0 if outcome.signum is None else 128 + outcome.signum
