"""The Predict call: request checked, signature run, response filled."""

from collections.abc import Iterable, Sequence

import grpc
import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from bmt_keras.contract import SERVING_DEFAULT

from .servable import Servable
from .status import StatusError, invalid
from .tensors import make_tensor_proto, parse_tensor

_METHODS = (
    "tensorflow/serving/predict",
    "tensorflow/serving/classify",
    "tensorflow/serving/regress",
)


def predict(
    servable: Servable,
    request: PredictRequest,
    *,
    timeout_ms: int | None = None,
) -> PredictResponse:
    """Answers a Predict request with TensorFlow Serving's checks and messages.

    The order of the checks is the signature, the number of inputs, each input
    by itself, the output filter; the model's own checks come last, in the run.

    Args:
        servable: The version that the request's model_spec names.
        request: An empty signature name means "serving_default", an empty
            output filter every output.
        timeout_ms: Milliseconds after which the run is given up.

    Returns:
        The outputs, with the resolved signature and the actual version.

    Raises:
        StatusError: If the request does not fit the signature or the run
            fails.
    """
    signature_name = request.model_spec.signature_name or SERVING_DEFAULT
    signature = find_signature(servable, signature_name)
    _check_input_count(signature, request)
    feeds = _resolve_inputs(signature, request)
    aliases = _resolve_outputs(signature, request.output_filter)
    fetches = [signature.outputs[alias].name for alias in aliases]
    values = servable.run(feeds, fetches, timeout_ms=timeout_ms)

    response = PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = signature_name
    response.model_spec.version.value = servable.version
    for alias, value in zip(aliases, values, strict=True):
        response.outputs[alias].CopyFrom(make_tensor_proto(value))
    return response


def find_signature(servable: Servable, name: str) -> SignatureDef:
    """Finds a signature that Predict may run.

    Raises:
        StatusError: If there is none of that name, or its method is unknown.
    """
    if name not in servable.signatures:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'Serving signature key "{name}" not found.',
        )
    signature = servable.signatures[name]
    if signature.method_name not in _METHODS:
        raise StatusError(
            grpc.StatusCode.INTERNAL,
            "Expected prediction signature method_name to be one of "
            f"{{{', '.join(_METHODS)}}}. Was: {signature.method_name}",
        )
    return signature


# === Inputs ===


def _check_input_count(
    signature: SignatureDef, request: PredictRequest
) -> None:
    sent, known = set(request.inputs), set(signature.inputs)
    # Defaults may stand in for inputs that were not sent.
    if len(sent) == len(known) or (
        len(sent) < len(known) and signature.defaults
    ):
        return
    raise invalid(
        f"input size does not match signature: {len(sent)}!={len(known)} "
        f"len({_braced(sent)}) != len({_braced(known)}). "
        f"Sent extra: {_braced(sent - known)}. "
        f"Missing but required: {_braced(known - sent)}.",
    )


def _resolve_inputs(
    signature: SignatureDef, request: PredictRequest
) -> dict[str, np.ndarray]:
    feeds = {}
    for alias, info in sorted(signature.inputs.items()):
        if alias in request.inputs:
            proto = request.inputs[alias]
        elif alias in signature.defaults:
            proto = signature.defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {info.name}) not "
                "found in request and no default value provided. Inputs "
                f"expected to be in the request {_braced(request.inputs)}, or "
                "default input alias set: "
                f"{','.join(sorted(signature.defaults))}",
            )
        try:
            feeds[info.name] = parse_tensor(proto)
        except ValueError as error:
            raise invalid(f"tensor parsing error: {alias}") from error
    _check_input_names(signature, request)
    return feeds


def _check_input_names(
    signature: SignatureDef, request: PredictRequest
) -> None:
    used = set(request.inputs) & set(signature.inputs)
    if len(used) != len(request.inputs):
        raise invalid(
            "Inputs contains invalid name. Used request inputs: "
            f"{','.join(sorted(used))}, request input: "
            f"{','.join(sorted(request.inputs))}",
        )


# === Outputs ===


def _resolve_outputs(
    signature: SignatureDef, output_filter: Sequence[str]
) -> list[str]:
    for position, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs "
                f"expected to be in the set {_braced(signature.outputs)}.",
            )
        if alias in output_filter[:position]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    return list(output_filter) or sorted(signature.outputs)


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
