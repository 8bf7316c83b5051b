"""What the gRPC port offers, and slow clients."""

import socket
import threading
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
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


def test_idle_clients_of_any_kind_stop_nobody(serve_toolbox, quick):
    limits = {"max_workers": 1, "rest_port": 0}
    head = b"POST /v1/models/toolbox:predict HTTP/1.1\r\nHost: a\r\n"
    starts = (b"", b"POST", head, head + b"Content-Length: 9\r\n\r\n{")
    given_up = threading.Event()

    def ask_nothing():
        given_up.wait()
        yield from ()

    with (
        serve_toolbox(**limits) as (server, stub, channel),
        ExitStack() as held,
    ):
        held.callback(given_up.set)
        reflection = ServerReflectionStub(channel)
        streams = [
            reflection.ServerReflectionInfo(ask_nothing()) for _ in range(64)
        ]
        streams += [
            HealthStub(channel).Watch(HealthCheckRequest()) for _ in range(64)
        ]
        for start in starts * 16:
            address = ("127.0.0.1", server.rest_port)
            client = held.enter_context(socket.create_connection(address))
            client.sendall(start)
        response = stub.Predict(quick, timeout=20)
        assert list(response.outputs["loud"].string_val) == [b"a!"]
        assert all(stream.is_active() for stream in streams)


def test_message_that_is_no_proto_is_an_internal_error(serve_toolbox):
    with serve_toolbox() as (_, _, channel):
        for method in (
            PREDICT,
            "/tensorflow.serving.ModelService/GetModelStatus",
        ):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"\xff", timeout=20)
            # The code of gRPC in C++.
            assert caught.value.code() == grpc.StatusCode.INTERNAL


def test_op_error_of_bytes_that_are_no_text_keeps_its_code(
    serve_toolbox, make_request, expect_error
):
    request = make_request("to_number", {"text": b"\xff\xfe"})
    with serve_toolbox() as (_, stub, _):
        code, message = expect_error(stub.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert message.startswith("StringToNumberOp could not correctly convert")


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
