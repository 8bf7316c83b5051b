"""A loaded version of a model: a session that runs its signatures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.framework import op_def_registry
from tensorflow.python.saved_model import loader_impl
from tensorflow.python.util import deprecation

from ..errors import ServingError
from .abort_switch import AbortSwitch
from .cancel_token import CancelToken
from .run_options import run_options
from .status import StatusError
from .tensors import to_array
from .version_folders import VersionFolder

_SERVE_TAG = "serve"


class Servable:
    """A version of a model, loaded and ready to run.

    The model runs in a TensorFlow 1 session, as in TensorFlow Serving: by
    tensor name, without a look into the model's Python side. So it serves any
    SavedModel, of TensorFlow 1 or 2, with state or without, and its dtype
    checks and messages are the runtime's own. Runs may overlap.

    Args:
        folder: VersionFolder to load.

    Attributes:
        version: int.
        signatures: mapping of signature name to SignatureDef.

    Raises:
        ServingError: If the folder holds no model that can be loaded.

    Example:
        ```python
        folder = find_version_folders(Path("models/bmt"))[-1]
        servable = Servable(folder)
        (y,) = servable.run({"x:0": np.float32([1.0])}, ["y:0"])
        servable.close()
        ```
    """

    def __init__(self, folder: VersionFolder) -> None:
        self.version = folder.version
        self._session = tf.compat.v1.Session(
            graph=tf.Graph(),
            config=_session_config(),
        )
        self._handles: dict[str, Any] = {}
        try:
            meta_graph, self._switch = _load(self._session, folder)
        except ServingError:
            self.close()
            raise
        self.signatures: Mapping[str, SignatureDef] = meta_graph.signature_def

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        fetches: Sequence[str],
        *,
        timeout_ms: int | None = None,
        cancel: CancelToken | None = None,
    ) -> list[np.ndarray]:
        """Runs the model once.

        The runtime builds an executor for each new set of feeds and fetches,
        then keeps it: the first run of a set is slow.

        Args:
            feeds: mapping of tensor name to np.ndarray.
            fetches: tensor names.
            timeout_ms: int. Milliseconds after which the run is given up.
            cancel: CancelToken that gives it up.

        Returns:
            list of np.ndarray, one a fetch; strings are bytes objects.

        Raises:
            StatusError: If the run fails, with the runtime's code and message.
        """
        feed_handles = {self._handle(k): v for k, v in feeds.items()}
        fetch_handles = [self._handle(name) for name in fetches]
        # Below Session.run, which would convert feeds on its own terms; a
        # callable of the session would fix its timeout for good.
        try:
            with (
                run_options(timeout_in_ms=timeout_ms or 0) as options,
                self._switch.run(fetches, cancel) as (feeds_added, targets),
            ):
                values = self._session._call_tf_sessionrun(
                    options,
                    {**feed_handles, **feeds_added},
                    fetch_handles,
                    targets,
                    None,
                )
        except tf.errors.OpError as error:
            if cancel is not None and cancel.cancelled:
                raise StatusError(
                    grpc.StatusCode.CANCELLED, "The client has left."
                ) from error
            raise StatusError.from_tensorflow(error) from error
        return [to_array(value) for value in values]

    def close(self) -> None:
        """Frees the model; runs still going on are cancelled."""
        self._session.close()

    def _handle(self, tensor_name: str) -> Any:
        if tensor_name not in self._handles:
            try:
                tensor = self._session.graph.get_tensor_by_name(tensor_name)
            except (KeyError, ValueError) as error:
                raise StatusError(
                    grpc.StatusCode.NOT_FOUND,
                    f"Tensor {tensor_name} of the signature is not in the "
                    "graph.",
                ) from error
            self._handles[tensor_name] = tensor._as_tf_output()
        return self._handles[tensor_name]


def _session_config() -> tf.compat.v1.ConfigProto:
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    # A second round of graph rewriting makes loading a fifth longer and runs
    # no faster.
    config.graph_options.rewrite_options.meta_optimizer_iterations = (
        RewriterConfig.ONE
    )
    return config


def _load(
    session: tf.compat.v1.Session, folder: VersionFolder
) -> tuple[MetaGraphDef, AbortSwitch]:
    try:
        _register_ops(folder)
        loader = loader_impl.SavedModelLoader(str(folder.path))
        meta_graph = loader.get_meta_graph_def_from_tags([_SERVE_TAG])
        with deprecation.silence():
            saver, _ = loader.load_graph(session.graph, [_SERVE_TAG])
            switch = _add_switch(session, meta_graph.signature_def.values())
            loader.restore_variables(session, saver)
            loader.run_init_ops(session, [_SERVE_TAG])
        switch.prepare()
    # A broken model fails in a dozen types: in its files, protos, ops or run.
    except Exception as error:
        raise ServingError(
            f"A version folder must hold a SavedModel tagged {_SERVE_TAG!r}. "
            f"Version {folder.version} in {folder.path} cannot be loaded: "
            f"{str(error).rstrip('.')}. Export the model again."
        ) from error
    return meta_graph, switch


def _add_switch(
    session: tf.compat.v1.Session, signatures: Iterable[SignatureDef]
) -> AbortSwitch:
    signatures = list(signatures)
    return AbortSwitch(
        session,
        inputs=[i.name for s in signatures for i in s.inputs.values()],
        outputs=[o.name for s in signatures for o in s.outputs.values()],
    )


def _register_ops(folder: VersionFolder) -> None:
    """Loads TensorFlow Text where a graph has ops that TensorFlow lacks.

    The released TensorFlow Serving links its ops, so models may use them.
    """
    for meta_graph in loader_impl.parse_saved_model(
        str(folder.path)
    ).meta_graphs:
        graph = meta_graph.graph_def
        functions = graph.library.function
        nodes = [graph.node, *(function.node_def for function in functions)]
        ops = {node.op for part in nodes for node in part}
        ops -= {function.signature.name for function in functions}
        if any(op_def_registry.get(op) is None for op in ops):
            import tensorflow_text  # noqa: F401

            return
