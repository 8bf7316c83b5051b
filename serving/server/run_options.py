"""Options of one run, in the form in which a session takes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.client import pywrap_tf_session


@contextmanager
def run_options(**fields: int) -> Iterator[Any]:
    """Yields the buffer for `_call_tf_sessionrun`, freed after the block.

    Args:
        **fields: fields of tf.compat.v1.RunOptions.
    """
    buffer = pywrap_tf_session.TF_NewBufferFromString(
        tf.compat.v1.RunOptions(**fields).SerializeToString()
    )
    try:
        yield buffer
    finally:
        pywrap_tf_session.TF_DeleteBuffer(buffer)
