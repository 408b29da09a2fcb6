"""The error of a user's making: bad input, a missing file, a wrong value."""


class UserError(Exception):
    """Something the user can put right. The message names the thing and the remedy.

    The command line prints it as one line and exits with code 2; as a library it is an ordinary exception.
    """
