"""The command `mover`."""

from mover.cli.main import main

__all__ = ["main"]
