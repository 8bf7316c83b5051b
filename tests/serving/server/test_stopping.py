"""The end of a server: calls in flight, and those that come too late."""

import threading

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras.serving.server import EmbeddedServer


def test_stop_lets_calls_in_flight_end(toolbox_path, make_request, quick):
    server = EmbeddedServer(toolbox_path, "toolbox", port=0, rest_port=0)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = PredictionServiceStub(channel)
        running = stub.Predict.future(
            make_request("spin", {"steps": np.int32(200_000)})
        )
        # Answered on the same connection after the call before it came.
        stub.Predict(quick)
        stopping = threading.Thread(target=server.stop, args=[60])
        stopping.start()
        response = running.result(timeout=60)
        stopping.join(timeout=60)
        assert not stopping.is_alive()
        with pytest.raises(grpc.RpcError) as caught:
            HealthStub(channel).Check(HealthCheckRequest(), timeout=20)
    assert response.outputs["done"].int_val[0] == 200_000
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_stop_gives_up_calls_after_its_grace(toolbox_path, quick, endless):
    server = EmbeddedServer(toolbox_path, "toolbox", port=0)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = PredictionServiceStub(channel)
        running = stub.Predict.future(endless)
        stub.Predict(quick)
        server.stop(0.2)
        with pytest.raises(grpc.RpcError):
            running.result(timeout=20)
