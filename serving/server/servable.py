"""A loaded version of a model: a session that runs its signatures."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef

from ..errors import ServingError
from .status import StatusError, invalid
from .tensors import to_array
from .version_folders import VersionFolder

_SERVE_TAG = "serve"


class Servable:
    """A version of a model, loaded and ready to run.

    The model runs in a TensorFlow 1 session, as in TensorFlow Serving: by
    tensor name, without a look into the model's Python side. So it serves any
    SavedModel, of TensorFlow 1 or 2, with state or without. Runs may overlap.

    Args:
        folder: The version to load.

    Attributes:
        version: The version's number.
        signatures: The SignatureDefs by name.

    Raises:
        ServingError: If the folder holds no model that can be loaded.

    Example:
        ```python
        servable = Servable(find_latest_version(Path("models/bmt")))
        (y,) = servable.run({"x:0": np.float32([1.0])}, ["y:0"])
        servable.close()
        ```
    """

    def __init__(self, folder: VersionFolder) -> None:
        self.version = folder.version
        self._session, meta_graph = _load(folder)
        self.signatures: Mapping[str, SignatureDef] = meta_graph.signature_def

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        fetches: Sequence[str],
        *,
        timeout_ms: int | None = None,
    ) -> list[np.ndarray]:
        """Runs the model once.

        The runtime builds an executor for each new set of feeds and fetches,
        then keeps it: the first run of a set is slow.

        Args:
            feeds: Arrays by tensor name.
            fetches: Tensor names.
            timeout_ms: Milliseconds after which the run is given up.

        Returns:
            One array per fetch; strings are bytes objects.

        Raises:
            StatusError: If the run fails, with the runtime's code and message.
        """
        for name in fetches:
            self._find(name)
        self._check_dtypes(feeds)
        # To a session, 0 means no limit.
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms or 0)
        try:
            values = self._session.run(list(fetches), dict(feeds), options)
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
        return [to_array(value) for value in values]

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
    folder: VersionFolder,
) -> tuple[tf.compat.v1.Session, MetaGraphDef]:
    try:
        try:
            return _load_session(folder)
        except tf.errors.NotFoundError as error:
            if "Op type not registered" not in error.message:
                raise
            # The released TensorFlow Serving links TensorFlow Text, so models
            # may use its ops.
            import tensorflow_text  # noqa: F401

            return _load_session(folder)
    # A broken model fails in a dozen types: in its files, protos, ops or run.
    except Exception as error:
        raise ServingError(
            f"A version folder must hold a SavedModel tagged {_SERVE_TAG!r}. "
            f"Version {folder.version} in {folder.path} cannot be loaded: "
            f"{str(error).rstrip('.')}. Export the model again."
        ) from error


def _load_session(
    folder: VersionFolder,
) -> tuple[tf.compat.v1.Session, MetaGraphDef]:
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    # A second round of graph rewriting makes loading a fifth longer and runs
    # no faster.
    rewrites = config.graph_options.rewrite_options
    rewrites.meta_optimizer_iterations = rewrites.ONE
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    try:
        with _no_deprecation_notes():
            meta_graph = tf.compat.v1.saved_model.load(
                session, [_SERVE_TAG], str(folder.path)
            )
    except BaseException:
        session.close()
        raise
    return session, meta_graph


@contextmanager
def _no_deprecation_notes() -> Iterator[None]:
    # TensorFlow deprecates its loader for sessions, which has no successor.
    def is_no_note(record: logging.LogRecord) -> bool:
        return "deprecat" not in str(record.msg)

    logger = tf.get_logger()
    logger.addFilter(is_no_note)
    try:
        yield
    finally:
        logger.removeFilter(is_no_note)
