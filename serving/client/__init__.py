"""The client: images in, captions out, from any server of the model.

It speaks to the embedded server and to TensorFlow Serving alike. It needs gRPC
and TensorFlow Serving's protos, which import TensorFlow: seconds at the start.
"""

from .channel import Tls
from .clients import AsyncCaptionClient, CaptionClient
from .results import Candidate, CaptionResult, FilledText, TextScore

__all__ = [
    "AsyncCaptionClient",
    "Candidate",
    "CaptionClient",
    "CaptionResult",
    "FilledText",
    "TextScore",
    "Tls",
]
