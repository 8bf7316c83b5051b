"""Failed calls: a gRPC status code with its message."""

import grpc
import tensorflow as tf

# TensorFlow Serving cuts messages here, so that a status fits its HTTP header.
_MESSAGE_LIMIT = 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """A call failed with a gRPC status and a message."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message

    @classmethod
    def from_tensorflow(cls, error: tf.errors.OpError) -> "StatusError":
        """Returns the status that an error of TensorFlow's runtime means."""
        # `Session.run` appends the Python lines that built the op; the error
        # that it replaced has the runtime's own message, which TensorFlow
        # Serving sends.
        raised = error.__context__
        if isinstance(raised, tf.errors.OpError):
            error = raised
        return cls(_CODES[error.error_code], error.message)

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
