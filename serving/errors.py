"""The error of serving, told in one sentence."""


class ServingError(Exception):
    """A server cannot serve, or a client cannot be served.

    The message is one sentence or two: what, where (address, folder or file),
    what was expected, what was found and what to do. The commands print it
    without a traceback.
    """
