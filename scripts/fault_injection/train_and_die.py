"""`mover train` in a process that torchrun starts, of which one dies: train_and_die.py STEP RANK WORD …

The process of that rank kills itself after so many steps, unless torchrun has started it in place of one that died.
"""

from __future__ import annotations

import os
import signal
import sys

from place import at_step

from mover.cli import main
from mover.distributed.world import restarted

if __name__ == "__main__":
    step, rank, *words = sys.argv[1:]
    if os.environ["RANK"] == rank and not restarted():
        at_step(int(step), lambda: os.kill(os.getpid(), signal.SIGKILL))()
    sys.exit(main(words))
