"""Optional dependencies, named by the command that wants them."""

import importlib.util
import sys

from bmt_keras.errors import InputError

# A module, and what installs it.
_EXTRAS = {
    "aiohttp": "'bmt-keras[serving]'",
    "prometheus_client": "'bmt-keras[serving]'",
    "grpc_health": "'bmt-keras[serving]'",
    "grpc_reflection": "'bmt-keras[serving]'",
    "pycocoevalcap": "'bmt-keras[evaluation]'",
    "matplotlib": "'bmt-keras[report]'",
    "jinja2": "'bmt-keras[report]'",
    # It takes an older protobuf than TensorFlow's tested versions have.
    "apache_beam": "'bmt-keras[beam]', in an environment of its own",
}


def require(*modules: str) -> None:
    """Refuses, ahead of long work, to go on without optional dependencies."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(_describe(module))


def explain(error: ModuleNotFoundError) -> str:
    """Says what installs a missing optional dependency; raises any other."""
    module = (error.name or "").split(".")[0]
    if module not in _EXTRAS:
        raise error
    return _describe(module)


def _describe(module: str) -> str:
    command = " ".join(["bmt", *sys.argv[1:2]])
    return f"`{command}` needs {module}: pip install {_EXTRAS[module]}"
