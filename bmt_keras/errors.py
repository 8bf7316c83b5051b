"""The error of bad input, told in one sentence."""


class InputError(ValueError):
    """What a user gave cannot be used.

    The message is one sentence or two: what, where (file, row or field), what
    was expected, what was found and what to do. The commands print it without
    a traceback and exit with code 2; library users catch it as a `ValueError`.
    """
