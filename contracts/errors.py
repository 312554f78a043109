"""Errors a user can mend."""


class UserError(Exception):
    """Bad input, told in one line: what was expected, what was found, how to mend it.

    Commands print the message without a traceback and exit with `exit_code`.
    """

    exit_code = 2
