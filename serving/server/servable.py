"""A loaded version of a model: a session that runs its signatures."""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef

from .status import invalid

_SERVE_TAG = "serve"


class Servable:
    """A version of a model, loaded and ready to run.

    The model runs in a TensorFlow 1 session, as in TensorFlow Serving: by
    tensor name, without a look into the model's Python side. So it serves any
    SavedModel, of TensorFlow 1 or 2, with state or without. Runs may overlap.
    """

    def __init__(self, version: int, path: Path) -> None:
        self.version = version
        try:
            self._session, meta_graph = _load(path)
        # What a broken file raises depends on where the fault is.
        except Exception as error:
            message = f"{_find_fault(path, str(error))}: {error}"
            code = getattr(error, "error_code", tf.errors.UNKNOWN)
            raise tf.errors.OpError(None, None, message, code) from error
        self.signatures: Mapping[str, SignatureDef] = meta_graph.signature_def

    def run(
        self,
        signature: SignatureDef,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        *,
        timeout_ms: int = 0,
    ) -> dict[str, np.ndarray]:
        """Runs a signature once; 0 milliseconds mean no limit.

        The runtime builds an executor for each new set of inputs and outputs,
        then keeps it: the first run of a set is slow.
        """
        feeds = {signature.inputs[k].name: v for k, v in inputs.items()}
        fetches = [signature.outputs[k].name for k in outputs]
        self._check_dtypes(feeds)
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms)
        values = self._session.run(fetches, feeds, options)
        return dict(zip(outputs, map(to_array, values), strict=True))

    def close(self) -> None:
        """Frees the model; runs still going on are cancelled."""
        self._session.close()

    def _check_dtypes(self, feeds: Mapping[str, np.ndarray]) -> None:
        # `Session.run` would convert in silence. The words are the runtime's,
        # which counts the arguments in the order of their names.
        for index, name in enumerate(sorted(feeds)):
            tensor = self._session.graph.get_tensor_by_name(name)
            expected = tensor.dtype.base_dtype
            found = tf.as_dtype(feeds[name].dtype)
            if found != expected:
                raise invalid(
                    f"Expects arg[{index}] to be {runtime_name(expected)} but "
                    f"{runtime_name(found)} is provided"
                )


def runtime_name(dtype: tf.DType) -> str:
    """Returns a dtype's name in messages: "float", not "float32"."""
    name: str = DataType.Name(dtype.as_datatype_enum)
    return name.removeprefix("DT_").lower()


def to_array(value: object) -> np.ndarray:
    """Returns a fetched value as an array, a scalar string included."""
    # NumPy alone would cut trailing zero bytes off a string.
    return np.asarray(value, dtype=object if isinstance(value, bytes) else None)


def _load(path: Path) -> tuple[tf.compat.v1.Session, MetaGraphDef]:
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    # A second round of graph rewriting makes loading a fifth longer and runs
    # no faster.
    rewrites = config.graph_options.rewrite_options
    rewrites.meta_optimizer_iterations = rewrites.ONE
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    logger = tf.get_logger()
    level = logger.level
    # TensorFlow deprecates its loader for sessions, which has no successor.
    logger.setLevel(logging.ERROR)
    try:
        load = tf.compat.v1.saved_model.load
        return session, load(session, [_SERVE_TAG], str(path))
    except BaseException as error:
        session.close()
        missing_op = "Op type not registered" in str(error)
        if not missing_op or "tensorflow_text" in sys.modules:
            raise
    finally:
        logger.setLevel(level)
    # The released TensorFlow Serving links TensorFlow Text, so models may use
    # its ops.
    import tensorflow_text  # noqa: F401

    return _load(path)


def _find_fault(path: Path, words: str) -> str:
    """The file of a version that an error in loading it is about."""
    if not re.search("RestoreV2|variables/variables", words):
        return str(path / "saved_model.pb")
    prefix = f"{path}/variables/variables"
    try:
        tf.train.load_checkpoint(prefix)  # reads the index alone
    except (ValueError, tf.errors.OpError):
        return f"{prefix}.index"
    return f"{prefix}.data-00000-of-00001"
