"""`python -m mover` is the command `mover`."""

import sys

from mover.cli import main

if __name__ == "__main__":
    sys.exit(main())
