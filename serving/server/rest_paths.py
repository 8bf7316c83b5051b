"""REST paths: which model, version and action a request names."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from tensorflow_serving.apis.model_pb2 import ModelSpec

from .examples import invalid

_MODEL = r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?"
_PATTERNS = {
    "POST": re.compile(
        _MODEL + ":(classify|regress|predict)", flags=re.IGNORECASE
    ),
    "GET": re.compile(_MODEL + "(?:/(metadata))?", flags=re.IGNORECASE),
}


class AskedPath(NamedTuple):
    """What a path names.

    Args:
        model_spec: ModelSpec.
        action: str: "predict", "classify", "regress", "metadata", or empty for
            the status.
    """

    model_spec: ModelSpec
    action: str


def read_path(method: str, path: str) -> AskedPath:
    """Reads a request's path.

    Args:
        method: str, "POST" or "GET".
        path: str, such as "/v1/models/bmt/versions/2:predict".

    Returns:
        AskedPath with the model's name.

    Raises:
        StatusError: If the path is none of TensorFlow Serving's.
    """
    match = _PATTERNS[method].fullmatch(path)
    if match is None or (method == "POST" and not match[1]):
        raise invalid(f"Malformed request: {method} {path}")
    name, version, label, action = match.groups()
    if not name:
        raise invalid("Missing model name in request.")
    model_spec = ModelSpec(name=unquote(name))
    if version is not None:
        if int(version) >= 2**63:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        model_spec.version.value = int(version)
    elif label is not None:
        model_spec.version_label = unquote(label)
    return AskedPath(model_spec, (action or "").lower())
