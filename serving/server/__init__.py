"""The embedded server: TensorFlow Serving's contract in a Python process.

`EmbeddedServer` opens the ports; a `Catalog` holds the versions that
`ServedModels` loads from disk as `Servable`s; the services of both ports answer
from the catalog.
"""

from .embedded_server import EmbeddedServer
from .model_config import read_model_config
from .tls import TlsFiles

__all__ = ["EmbeddedServer", "TlsFiles", "read_model_config"]
