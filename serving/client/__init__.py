"""The client: photos in, captions out, from any server of the model.

It speaks to the embedded server and to TensorFlow Serving alike. It needs
gRPC and the protos alone; that these bring TensorFlow along costs seconds at
start, and nothing of it is used.
"""

from .asynchronous import AsyncCaptionClient
from .blocking import CaptionClient
from .channel import Tls
from .questions import CallOptions
from .results import Candidate, CaptionResult, FilledText, TextScore

__all__ = [
    "AsyncCaptionClient",
    "CallOptions",
    "Candidate",
    "CaptionClient",
    "CaptionResult",
    "FilledText",
    "TextScore",
    "Tls",
]
