"""Limits on messages, calls and time."""

import socket

import grpc
import numpy as np
import pytest

from bmt_keras.serving.server.model_config import make_model_config

PATH = "/v1/models/toolbox:predict"
SHOUT = {"signature_name": "shout", "instances": ["t"]}


# === Messages and calls ===


def test_larger_message_is_refused(serve_toolbox, make_request, expect_error):
    with serve_toolbox(max_message_bytes=2000) as (_, stub, _):
        large = make_request("shout", {"text": [b"t" * 2000]})
        code, _ = expect_error(stub.Predict, large)
        assert code == "RESOURCE_EXHAUSTED"
        stub.Predict(make_request("shout", {"text": [b"t" * 1000]}))


def test_calls_over_the_limit_are_refused(
    serve_toolbox, quick, endless, wait_for_calls, expect_error, send_rest
):
    limits = {"rest_port": 0, "max_concurrent_calls": 1}
    with serve_toolbox(**limits) as (server, stub, _):
        running = stub.Predict.future(endless, timeout=60)
        wait_for_calls(server, 1)
        message = "Concurrent RPC limit exceeded!"
        answer = expect_error(stub.Predict, quick)
        assert answer == ("RESOURCE_EXHAUSTED", message)
        rest = f"127.0.0.1:{server.rest_port}"
        assert send_rest(rest, PATH, SHOUT) == (429, {"error": message})
        running.cancel()


# === Time ===


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


def _leave_over_grpc(server, stub, wait_for_calls, make_request):
    add = make_request("", {"by": np.int64(1000)}, model="counter")
    waiting = stub.Predict.future(add)
    wait_for_calls(server, 2)
    waiting.cancel()


def _leave_over_rest(server, stub, wait_for_calls, make_request):
    body = b'{"inputs": {"by": 1000, "unit": ""}}'
    head = "POST /v1/models/counter:predict HTTP/1.1\r\nHost: a\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    address = ("127.0.0.1", server.rest_port)
    with socket.create_connection(address) as client:
        client.sendall(head.encode() + body)
        wait_for_calls(server, 2)


@pytest.mark.parametrize("leave", [_leave_over_grpc, _leave_over_rest])
def test_waiting_call_of_a_client_that_left_never_runs(
    serve, served_models, make_request, endless, wait_for_calls, leave
):
    read = make_request("", {"by": np.int64(0)}, model="counter")
    models = make_model_config("toolbox", served_models / "toolbox")
    models.MergeFrom(make_model_config("counter", served_models / "counter"))
    with serve(models, "", rest_port=0, max_workers=1) as (server, stub, _):
        busy = stub.Predict.future(endless, timeout=3.0)
        wait_for_calls(server, 1)
        leave(server, stub, wait_for_calls, make_request)
        wait_for_calls(server, 1)
        assert busy.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        response = stub.Predict(read, timeout=20)
    assert response.outputs["total"].int64_val[0] == 0
