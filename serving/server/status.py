"""Failed calls: a gRPC status code with its message."""

import logging

import grpc
import tensorflow as tf

# TensorFlow Serving cuts messages here, so that a status fits its HTTP header.
_MESSAGE_LIMIT = 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}

_LOGGER = logging.getLogger(__name__)


class StatusError(Exception):
    """A call failed with a gRPC status and a message."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message

    @property
    def wire_message(self) -> str:
        """The message as it is sent: 1024 bytes of it, then a mark."""
        encoded = self.message.encode(errors="replace")
        if len(encoded) <= _MESSAGE_LIMIT:
            return encoded.decode()
        cut = encoded[:_MESSAGE_LIMIT].decode(errors="ignore")
        return f"{cut}...TRUNCATED"


def invalid(message: str) -> StatusError:
    """Returns the error of a request that does not fit."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def to_status(error: Exception) -> StatusError:
    """Returns the status that any error in a call means to its client."""
    if isinstance(error, StatusError):
        return error
    if isinstance(error, tf.errors.OpError):
        # `Session.run` appends the Python lines that built the op; the error
        # that it replaced has the runtime's own message, which TensorFlow
        # Serving sends.
        replaced = error.__context__
        first = replaced if isinstance(replaced, tf.errors.OpError) else error
        return StatusError(_CODES[first.error_code], first.message)
    if isinstance(error, UnicodeDecodeError):
        # So TensorFlow reports an op's error that quotes bytes of its input.
        return invalid(error.object.decode(errors="replace"))
    if isinstance(error, TimeoutError):
        return StatusError(
            grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
        )
    if isinstance(error, MemoryError):
        return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
    # Python, NumPy and the session say so of a request's values.
    if isinstance(error, (ValueError, OverflowError, RecursionError)):
        return invalid(str(error))
    _LOGGER.error("A call failed unexpectedly", exc_info=error)
    return StatusError(
        grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
    )
