"""A loaded version of a model: a session that runs its signatures."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef

from ..errors import ServingError
from .status import StatusError, invalid
from .tensors import to_array

_SERVE_TAG = "serve"


class Servable:
    """A version of a model, loaded and ready to run.

    The model runs in a TensorFlow 1 session, as in TensorFlow Serving: by
    tensor name, without a look into the model's Python side. So it serves any
    SavedModel, of TensorFlow 1 or 2, with state or without. Runs may overlap.
    """

    def __init__(self, version: int, path: Path) -> None:
        self.version = version
        self._session, meta_graph = _load(version, path)
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
        fetches = [self._find(signature.outputs[k].name) for k in outputs]
        self._check_dtypes(feeds)
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms)
        try:
            values = self._session.run(fetches, feeds, options)
        except tf.errors.OpError as error:
            raise StatusError.from_tensorflow(error) from error
        except ValueError as error:
            # The session compares shapes with the placeholder's own.
            raise invalid(str(error)) from error
        except RuntimeError as error:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                f"Version {self.version} has been unloaded.",
            ) from error
        return dict(zip(outputs, map(to_array, values), strict=True))

    def close(self) -> None:
        """Frees the model; runs still going on are cancelled."""
        self._session.close()

    def _check_dtypes(self, feeds: Mapping[str, np.ndarray]) -> None:
        # `Session.run` would convert in silence. The words are the runtime's,
        # which counts the arguments in the order of their names.
        for index, name in enumerate(sorted(feeds)):
            expected = self._find(name).dtype.base_dtype
            found = tf.as_dtype(feeds[name].dtype)
            if found != expected:
                raise invalid(
                    f"Expects arg[{index}] to be {_runtime_name(expected)} but "
                    f"{_runtime_name(found)} is provided"
                )

    def _find(self, tensor_name: str) -> tf.Tensor:
        try:
            return self._session.graph.get_tensor_by_name(tensor_name)
        except (KeyError, ValueError) as error:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Tensor {tensor_name} of the signature is not in the graph.",
            ) from error


def _runtime_name(dtype: tf.DType) -> str:
    # "float", where tf.DType.name is "float32".
    name: str = DataType.Name(dtype.as_datatype_enum)
    return name.removeprefix("DT_").lower()


# === Loading ===


def _load(
    version: int, path: Path
) -> tuple[tf.compat.v1.Session, MetaGraphDef]:
    try:
        try:
            return _load_session(path)
        except tf.errors.NotFoundError as error:
            if "Op type not registered" not in error.message:
                raise
            # The released TensorFlow Serving links TensorFlow Text, so models
            # may use its ops.
            import tensorflow_text  # noqa: F401

            return _load_session(path)
    # A broken model fails in a dozen types: in its files, protos, ops or run.
    except Exception as error:
        raise ServingError(
            f"A version folder must hold a SavedModel tagged {_SERVE_TAG!r}. "
            f"Version {version} in {path} cannot be loaded: "
            f"{str(error).rstrip('.')}. Export the model again."
        ) from error


def _load_session(path: Path) -> tuple[tf.compat.v1.Session, MetaGraphDef]:
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
    except BaseException:
        session.close()
        raise
    finally:
        logger.setLevel(level)
