"""The client: images in, captions out, from any server of the model.

It speaks to the embedded server and to TensorFlow Serving alike. It needs gRPC
and TensorFlow Serving's protos, which import TensorFlow: seconds at the start.
"""

from .asynchronous import AsyncCaptionClient
from .channel import Tls
from .requests import CallOptions
from .results import Candidate, CaptionResult, FilledText, TextScore
from .synchronous import CaptionClient

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
