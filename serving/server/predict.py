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

_METHODS = tuple(
    f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress")
)


def predict(
    servable: Servable, request: PredictRequest, *, timeout_ms: int = 0
) -> PredictResponse:
    """Answers a Predict request with TensorFlow Serving's checks and messages.

    The order of the checks is the signature, the number of inputs, each input
    by itself, the output filter; the model's own checks come last, in the run.
    """
    name = request.model_spec.signature_name or SERVING_DEFAULT
    signature = find_signature(servable, name)
    _check_input_count(signature, request)
    inputs = _read_inputs(signature, request)
    _check_filter(signature, request.output_filter)
    # An empty filter means every output.
    aliases = list(request.output_filter) or sorted(signature.outputs)
    outputs = servable.run(signature, inputs, aliases, timeout_ms=timeout_ms)

    response = PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = name
    response.model_spec.version.value = servable.version
    for alias, array in outputs.items():
        response.outputs[alias].CopyFrom(make_tensor_proto(array))
    return response


def find_signature(servable: Servable, name: str) -> SignatureDef:
    """Finds a signature that Predict may run."""
    if name not in servable.signatures:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'Serving signature key "{name}" not found.',
        )
    signature = servable.signatures[name]
    # As with --enable_signature_method_name_check.
    if signature.method_name not in _METHODS:
        raise StatusError(
            grpc.StatusCode.INTERNAL,
            "Expected prediction signature method_name to be one of "
            f"{{{', '.join(_METHODS)}}}. Was: {signature.method_name}",
        )
    return signature


def _check_input_count(
    signature: SignatureDef, request: PredictRequest
) -> None:
    sent, known = set(request.inputs), set(signature.inputs)
    surplus = len(sent) - len(known)
    # Defaults may stand in for inputs that were not sent.
    if surplus == 0 or (surplus < 0 and signature.defaults):
        return
    raise invalid(
        f"input size does not match signature: {len(sent)}!={len(known)} "
        f"len({_braced(sent)}) != len({_braced(known)}). "
        f"Sent extra: {_braced(sent - known)}. "
        f"Missing but required: {_braced(known - sent)}."
    )


def _read_inputs(
    signature: SignatureDef, request: PredictRequest
) -> dict[str, np.ndarray]:
    inputs = {}
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
                f"{','.join(sorted(signature.defaults))}"
            )
        # One after another: the first that cannot be parsed is named.
        try:
            inputs[alias] = parse_tensor(proto)
        except ValueError as error:
            raise invalid(f"tensor parsing error: {alias}") from error
    used = inputs.keys() & set(request.inputs)
    if len(used) != len(request.inputs):
        raise invalid(
            "Inputs contains invalid name. Used request inputs: "
            f"{','.join(sorted(used))}, request input: "
            f"{','.join(sorted(request.inputs))}"
        )
    return inputs


def _check_filter(
    signature: SignatureDef, output_filter: Sequence[str]
) -> None:
    for position, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs "
                f"expected to be in the set {_braced(signature.outputs)}."
            )
        if alias in output_filter[:position]:
            raise invalid(f"duplicate output tensor alias: {alias}")


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
