"""The error of a user's making: bad input, a missing file, a wrong value."""

from collections.abc import Sequence


class UserError(Exception):
    """Something the user can put right. The message names the thing and the remedy.

    The command line prints it as one line and exits with code 2; as a library it is an ordinary exception.
    """


class Problems(UserError):
    """Several things the user can put right, told at once; `problems` has a sentence or two for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Told(UserError):
    """Another process of the run has said what is wrong; this one ends without a word."""

    def __init__(self) -> None:
        super().__init__("another process of the run says what is wrong")
