"""What the gRPC port offers, and slow clients."""

import threading

import grpc
import numpy as np
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

PREDICT = "/tensorflow.serving.PredictionService/Predict"


def test_other_predictions_are_served_elsewhere(serve_toolbox, expect_error):
    with serve_toolbox() as (_, stub, _):
        for method, request in {
            "Classify": ClassificationRequest(),
            "Regress": RegressionRequest(),
            "MultiInference": MultiInferenceRequest(),
        }.items():
            code, message = expect_error(getattr(stub, method), request)
            assert code == "UNIMPLEMENTED"
            assert f"{method} is served by TensorFlow Serving" in message


def test_slow_uploads_stop_nobody(serve_toolbox, quick):
    limits = {"max_workers": 1, "max_concurrent_calls": 2}
    with serve_toolbox(**limits) as (server, stub, _):
        address = f"127.0.0.1:{server.port}"
        given_up = threading.Event()

        def send_nothing():
            given_up.wait()
            yield from ()

        with grpc.insecure_channel(address) as slow:
            # Of this kind, a client sends its headers before its message.
            upload = slow.stream_unary(
                PREDICT,
                PredictRequest.SerializeToString,
                PredictResponse.FromString,
            )
            uploads = [upload.future(send_nothing()) for _ in range(40)]
            response = stub.Predict(quick, timeout=20)
            assert not any(each.done() for each in uploads)
            given_up.set()
            for each in uploads:
                each.cancel()
    assert list(response.outputs["loud"].string_val) == [b"a!"]


def test_full_pool_leaves_questions_about_models_answered(
    serve_toolbox, endless, wait_for_calls
):
    with serve_toolbox(max_workers=1) as (server, stub, channel):
        calls = [stub.Predict.future(endless, timeout=60) for _ in range(3)]
        wait_for_calls(server, 3)
        health = HealthStub(channel).Check(HealthCheckRequest(), timeout=20)
        assert health.status == HealthCheckResponse.SERVING
        asked = GetModelMetadataRequest(metadata_field=["signature_def"])
        asked.model_spec.name = "toolbox"
        stub.GetModelMetadata(asked, timeout=20)
        ModelServiceStub(channel).GetModelStatus(
            GetModelStatusRequest(model_spec=asked.model_spec), timeout=20
        )
        assert not any(call.done() for call in calls)


def test_shape_that_a_signature_does_not_take_is_reported(
    serve_toolbox, make_request, expect_error
):
    request = make_request("dtypes", {"x": np.float32([1, 2, 3])})
    with serve_toolbox() as (_, stub, _):
        code, message = expect_error(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert "Cannot feed value of shape (3,)" in message
