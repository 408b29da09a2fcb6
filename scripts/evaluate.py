#!/usr/bin/env python3
"""Recall@K: `python scripts/evaluate.py --checkpoint runs/demo/checkpoints/best`. The same as `mover evaluate`."""

import sys

from mover.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
