"""PredictionService: the calls that run a model, over gRPC."""

from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis.classification_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
)
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
)
from tensorflow_serving.apis.inference_pb2 import (
    MultiInferenceRequest,
    MultiInferenceResponse,
)
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
)
from tensorflow_serving.apis.regression_pb2 import (
    RegressionRequest,
    RegressionResponse,
)

from .cancel_token import CancelToken
from .catalog import Catalog
from .classify import classify
from .metadata import describe_model, require_model_spec
from .metrics import Metrics
from .multi_inference import first_model_spec, multi_inference
from .predict import predict
from .regress import regress
from .status import abort_on_error

_LONGEST_TIMEOUT_MS = 2**31 - 1
# gRPC sends a deadline rounded up to two or three digits.
_LEAST_MARGIN, _RELATIVE_MARGIN = 0.05, 0.01


class PredictionService(PredictionServiceServicer):
    """Answers prediction calls from the versions in a catalog.

    A call's deadline bounds the run of the model, which ends, too, when the
    client leaves.

    Args:
        catalog: Catalog.
        metrics: Metrics, where calls are counted.
    """

    def __init__(self, catalog: Catalog, metrics: Metrics) -> None:
        self._catalog = catalog
        self._metrics = metrics

    def Predict(
        self, request: PredictRequest, context: grpc.ServicerContext
    ) -> PredictResponse:
        """Runs a signature on tensors."""
        return self._answer("Predict", predict, request, context)

    def Classify(
        self, request: ClassificationRequest, context: grpc.ServicerContext
    ) -> ClassificationResponse:
        """Runs a signature that classifies examples."""
        return self._answer("Classify", classify, request, context)

    def Regress(
        self, request: RegressionRequest, context: grpc.ServicerContext
    ) -> RegressionResponse:
        """Runs a signature that gives examples a number."""
        return self._answer("Regress", regress, request, context)

    def MultiInference(
        self, request: MultiInferenceRequest, context: grpc.ServicerContext
    ) -> MultiInferenceResponse:
        """Runs several signatures on the same examples at once."""
        model_spec = first_model_spec(request)
        with abort_on_error(context), self._catalog.borrow(model_spec) as model:
            return multi_inference(model, request, **_limits(context))

    def GetModelMetadata(
        self, request: GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> GetModelMetadataResponse:
        """Describes a version's signatures."""
        with abort_on_error(context):
            return describe_model(self._catalog, request)

    def _answer(
        self,
        api: str,
        run: Callable[..., Any],
        request: Any,
        context: grpc.ServicerContext,
    ) -> Any:
        with (
            abort_on_error(context),
            self._metrics.watch(request.model_spec.name, api, "GRPC"),
            self._catalog.borrow(require_model_spec(request)) as model,
        ):
            return run(model, request, **_limits(context))


def _limits(context: grpc.ServicerContext) -> dict[str, Any]:
    """Returns what ends a run: the call's deadline, or that its client left."""
    seconds = context.time_remaining()
    token = CancelToken()

    def leave() -> None:
        # A client gives up at its deadline a little before the server: that
        # is left to the deadline, so that the call is counted as such.
        if seconds is None or context.time_remaining() > _margin(seconds):
            token.cancel()

    if not context.add_callback(leave):
        token.cancel()
    if seconds is None:
        return {"cancel": token}
    # At least 1: to a session, 0 means no limit.
    timeout_ms = int(max(1, min(seconds * 1000, _LONGEST_TIMEOUT_MS)))
    return {"cancel": token, "timeout_ms": timeout_ms}


def _margin(seconds: float) -> float:
    return max(_LEAST_MARGIN, _RELATIVE_MARGIN * seconds)
