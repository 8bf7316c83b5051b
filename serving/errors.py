"""The error of serving."""


class ServingError(Exception):
    """A server cannot serve, or a client cannot be served.

    The message says what, where (address, folder or file), what was expected
    and found, and what to do. The commands print it without a traceback.
    """
