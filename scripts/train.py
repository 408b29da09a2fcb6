#!/usr/bin/env python3
"""Train a model: `python scripts/train.py --config demo`. The same as `mover train`."""

import sys

from mover.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
