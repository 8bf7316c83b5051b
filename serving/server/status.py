"""Failed calls: a gRPC status code with its message."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import tensorflow as tf

# TensorFlow Serving cuts messages here, so that a status fits its HTTP header.
_MESSAGE_LIMIT = 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """A call failed with a gRPC status.

    Args:
        code: grpc.StatusCode.
        message: str. Longer than 1024 bytes, it is cut when it is sent.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message

    @classmethod
    def from_tensorflow(cls, error: tf.errors.OpError) -> "StatusError":
        """Returns the status that a failed session run stands for."""
        return cls(_CODES[error.error_code], error.message)


def truncate_message(message: str) -> str:
    """Returns the message as it is sent: 1024 bytes of it, then a mark."""
    encoded = message.encode()
    if len(encoded) <= _MESSAGE_LIMIT:
        return message
    return encoded[:_MESSAGE_LIMIT].decode(errors="ignore") + "...TRUNCATED"


@contextmanager
def abort_on_error(context: grpc.ServicerContext) -> Iterator[None]:
    """Ends the call with its status when the block raises a `StatusError`."""
    try:
        yield
    except StatusError as error:
        context.abort(error.code, truncate_message(error.message))
