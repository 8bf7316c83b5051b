"""bmt_keras: image captioning with masked language models in Keras.

Layers live in `bmt_keras.layers`, models in `bmt_keras.models`. `Captioner`
and `train` are loaded when they are first asked for, so that the serving
client imports no Keras.

Example:
    ```python
    captioner = bmt_keras.train(
        "small", captions="captions.json", images="images", out="runs/mine"
    )
    captioner.caption("photo.jpg")
    ```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmt_keras.captioner import Captioner
    from bmt_keras.training.run import train

__all__ = ["Captioner", "__version__", "train"]
__version__ = "0.1.0"

_LAZY = {
    "Captioner": "bmt_keras.captioner",
    "train": "bmt_keras.training.run",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
