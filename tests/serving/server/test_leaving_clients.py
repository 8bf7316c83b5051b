"""Clients that leave while their call runs."""

import json
import logging
import socket
import time
import urllib.request

import grpc
import pytest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

PATH = "/v1/models/toolbox:predict"


@pytest.fixture(autouse=True)
def no_traces(caplog):
    with caplog.at_level(logging.INFO):
        yield
    assert not [r.message for r in caplog.records if r.exc_info]


def _counts(rest):
    url = f"http://{rest}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(url, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    name = ':tensorflow:serving:request_count{model_name="toolbox",status='
    found = [line for line in lines if line.startswith(name)]
    return dict(line[len(name) :].split("} ") for line in found)


def test_cancelled_calls_free_their_workers(
    serve_toolbox, quick, endless, wait_for_calls
):
    # Each of them would run for longer than an hour.
    with serve_toolbox(max_workers=3, rest_port=0) as (server, stub, _):
        stub.Predict(quick)
        calls = [stub.Predict.future(endless) for _ in range(3)]
        wait_for_calls(server, 3)
        time.sleep(0.3)
        for call in calls:
            call.cancel()
        wait_for_calls(server, 0)
        response = stub.Predict(quick, timeout=60)
        counts = _counts(f"127.0.0.1:{server.rest_port}")
    assert list(response.outputs["loud"].string_val) == [b"a!"]
    assert counts['"OK"'] == "2"
    assert counts['"CANCELLED"'] == "3"


def test_lost_connection_ends_its_call_and_no_other(
    serve_toolbox, long_call, endless, wait_for_calls
):
    with serve_toolbox(max_workers=2) as (server, stub, _):
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as leaving:
            left = PredictionServiceStub(leaving).Predict.future(endless)
            wait_for_calls(server, 1)
            staying = stub.Predict.future(long_call)
        steps = staying.result(timeout=60).outputs["done"].int_val[0]
        wait_for_calls(server, 0)
    assert steps == 200_000
    assert left.code() == grpc.StatusCode.CANCELLED


def test_deadline_is_counted_as_such(
    serve_toolbox, endless, wait_for_calls, expect_error
):
    with serve_toolbox(rest_port=0) as (server, stub, _):
        code, _ = expect_error(stub.Predict, endless, timeout=0.5)
        wait_for_calls(server, 0)
        counts = _counts(f"127.0.0.1:{server.rest_port}")
    assert code == "DEADLINE_EXCEEDED"
    assert counts == {'"DEADLINE_EXCEEDED"': "1"}


def test_rest_client_that_closes_its_socket_ends_its_call(
    serve_toolbox, send_rest
):
    document = {"signature_name": "spin", "inputs": 2**31 - 1}
    body = json.dumps(document).encode()
    head = f"POST {PATH} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with serve_toolbox(rest_port=0, max_concurrent_calls=1) as (server, _, _):
        address = ("127.0.0.1", server.rest_port)
        with socket.create_connection(address) as leaving:
            leaving.sendall(head.encode() + body)
            time.sleep(0.5)
        rest = "{}:{}".format(*address)
        asked = {"signature_name": "shout", "instances": ["a"]}
        code = 429
        while code == 429:
            code, answer = send_rest(rest, PATH, asked)
        counts = _counts(rest)
    assert code == 200
    assert answer["predictions"] == [
        {"loud": "a!", "loud_bytes": {"b64": "YSE="}}
    ]
    # Its time would have been up after 30 seconds.
    assert counts == {'"CANCELLED"': "1", '"OK"': "1"}
