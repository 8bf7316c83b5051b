"""What a command needs before it works: its packages, a quiet TensorFlow."""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from bmt_keras.errors import InputError
from bmt_keras.serving.errors import ServingError

# An optional module, and what installs it.
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
    """Refuses, ahead of long work, to go on without optional modules."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(explain(ModuleNotFoundError(name=module)))


def explain(error: Exception) -> str:
    """Says what to do about an error that is no bug; raises any other one."""
    text, command = " ".join(str(error).split()), "".join(sys.argv[1:2])
    name = type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").split(".")[0]
        if module in _EXTRAS:
            command = f"bmt {command}".rstrip()
            return f"`{command}` needs {module}: pip install {_EXTRAS[module]}"
    elif isinstance(error, InputError | ServingError):
        return text
    elif "No space left on device" in text:
        return f"{text[-300:]}; free some space, or give another folder."
    # TensorFlow has a class of its own, which not every command loads.
    elif isinstance(error, MemoryError) or name == "ResourceExhaustedError":
        less = "fewer or smaller images"
        if command in ("train", "pretrain"):
            less = "a smaller --batch-size (see --gradient-accumulation-steps)"
        return f"Out of memory ({text[:200] or 'of the host'}); give {less}."
    elif isinstance(error, OSError):
        return text
    raise error


def load_tensorflow(*, devices: bool = True) -> None:
    """Imports TensorFlow and finds its devices, silently if all goes well.

    A client needs no `devices`, and a strategy finds them by itself.
    """
    with silence_start():
        import tensorflow as tf

        if devices:
            tf.config.list_logical_devices()


@contextmanager
def silence_start() -> Iterator[None]:
    """Keeps a block's error stream back, unless the block raises."""
    # The native libraries report missing accelerators and CPU features there
    # before any log level counts, which would bury a command's own words.
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BaseException:
            chatter.seek(0)
            os.write(stderr, chatter.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
