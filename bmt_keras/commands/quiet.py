"""TensorFlow without its start-up chatter."""

import os
import sys
import tempfile


def load_tensorflow(*, devices: bool = True) -> None:
    """Imports TensorFlow and finds its devices, silently if all goes well.

    The native libraries report missing accelerators and CPU features on the
    error stream before any log level counts, which would bury a command's own
    words.

    Args:
        devices: Whether the devices are found; a client needs none.

    Raises:
        ImportError: TensorFlow cannot be loaded; what it wrote is shown.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            import tensorflow as tf

            if devices:
                tf.config.list_logical_devices()
        except BaseException:
            chatter.seek(0)
            os.write(stderr, chatter.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
