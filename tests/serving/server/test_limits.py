"""Limits on messages, calls and time."""

import socket

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList

from bmt_keras.serving.server import EmbeddedServer
from bmt_keras.serving.server.predict import predict
from bmt_keras.serving.server.servable import Servable
from bmt_keras.serving.server.status import StatusError
from bmt_keras.serving.server.version_folders import find_version_folders

PATH = "/v1/models/toolbox:predict"


def _shout(text):
    return {"signature_name": "shout", "instances": [text]}


# === Messages and calls ===


def test_larger_message_is_refused_on_both_ports(
    serve_toolbox, make_request, expect_error, send_rest
):
    with serve_toolbox(rest_port=0, max_message_bytes=2000) as (
        server,
        stub,
        _,
    ):
        large = make_request("shout", {"text": [b"t" * 2000]})
        code, _ = expect_error(stub.Predict, large)
        assert code == "RESOURCE_EXHAUSTED"
        stub.Predict(make_request("shout", {"text": [b"t" * 1000]}))

        rest = f"127.0.0.1:{server.rest_port}"
        code, answer = send_rest(rest, PATH, _shout("t" * 10**6))
        assert (code, set(answer)) == (429, {"error"})
        assert send_rest(rest, PATH, _shout("t"))[0] == 200


def test_calls_over_the_limit_are_refused(
    serve_toolbox, quick, endless, wait_for_calls, expect_error, send_rest
):
    with serve_toolbox(rest_port=0, max_concurrent_calls=1) as (
        server,
        stub,
        _,
    ):
        running = stub.Predict.future(endless, timeout=60)
        wait_for_calls(server, 1)
        message = "Concurrent RPC limit exceeded!"
        answer = expect_error(stub.Predict, quick)
        assert answer == ("RESOURCE_EXHAUSTED", message)
        rest = f"127.0.0.1:{server.rest_port}"
        assert send_rest(rest, PATH, _shout("t")) == (429, {"error": message})
        running.cancel()


# === Time ===


def test_timeout_ends_a_run(toolbox_path, endless):
    servable = Servable(find_version_folders(toolbox_path)[-1])
    with pytest.raises(StatusError) as caught:
        predict(servable, endless, timeout_ms=50)
    servable.close()
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_deadline_frees_the_worker_and_is_counted(
    serve_toolbox, quick, endless, expect_error
):
    with serve_toolbox(max_workers=1) as (server, stub, _):
        code, _ = expect_error(stub.Predict, endless, timeout=0.3)
        response = stub.Predict(quick, timeout=20)
        page = server._metrics.render().decode()
    assert code == "DEADLINE_EXCEEDED"
    assert list(response.outputs["loud"].string_val) == [b"a!"]
    for status in ("DEADLINE_EXCEEDED", "OK"):
        assert f'{{model_name="toolbox",status="{status}"}} 1.0' in page


@pytest.fixture
def counting_server(toolbox_path, counter_path):
    """One thread for the toolbox and the counter."""
    models = ModelConfigList()
    for name, path in (("toolbox", toolbox_path), ("counter", counter_path)):
        models.config.add(
            name=name, base_path=str(path), model_platform="tensorflow"
        )
    with EmbeddedServer(models, port=0, rest_port=0, max_workers=1) as server:
        yield server


def _leave_over_grpc(server, wait_for_calls, make_request):
    add = make_request("", {"by": np.int64(1000)}, model="counter")
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        waiting = PredictionServiceStub(channel).Predict.future(add)
        wait_for_calls(server, 2)
        waiting.cancel()


def _leave_over_rest(server, wait_for_calls, make_request):
    body = b'{"inputs": {"by": 1000, "unit": ""}}'
    head = "POST /v1/models/counter:predict HTTP/1.1\r\nHost: a\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    address = ("127.0.0.1", server.rest_port)
    with socket.create_connection(address) as client:
        client.sendall(head.encode() + body)
        wait_for_calls(server, 2)


@pytest.mark.parametrize("leave", [_leave_over_grpc, _leave_over_rest])
def test_waiting_call_of_a_client_that_left_never_runs(
    counting_server, make_request, endless, wait_for_calls, leave
):
    read = make_request("", {"by": np.int64(0)}, model="counter")
    address = f"127.0.0.1:{counting_server.port}"
    with grpc.insecure_channel(address) as channel:
        stub = PredictionServiceStub(channel)
        busy = stub.Predict.future(endless, timeout=3.0)
        wait_for_calls(counting_server, 1)
        leave(counting_server, wait_for_calls, make_request)
        wait_for_calls(counting_server, 1)
        assert busy.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        response = stub.Predict(read, timeout=20)
    assert response.outputs["total"].int64_val[0] == 0
