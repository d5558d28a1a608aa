"""The two ways in which a command ends badly; each is told in one line, without a traceback."""


class InputError(Exception):
    """What the user gave cannot be used (exit code 2).

    The message names the file or option, the field, the value and what is allowed.
    """


class StackError(Exception):
    """The input was fine, the stack or the host could not do it (exit code 1)."""
