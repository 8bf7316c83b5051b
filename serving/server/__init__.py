"""The embedded server: TensorFlow Serving's contract in a Python process.

`EmbeddedServer` opens a `GrpcPort` and, if asked, a `RestPort`. Both answer
from the versions that `ServedModels` loads from disk as `Servable`s. Messages
are received on an event loop in a thread of its own; models run in the threads
of a `RunPool`.
"""

from .embedded_server import EmbeddedServer
from .grpc_port import TlsFiles
from .model_config import read_model_config

__all__ = ["EmbeddedServer", "TlsFiles", "read_model_config"]
