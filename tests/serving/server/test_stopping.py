"""The end of a server: calls in flight, and those that come too late."""

import asyncio
import threading
import time
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
)
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

from bmt_keras.serving.client import CaptionClient
from bmt_keras.serving.server import EmbeddedServer

STATUS = GetModelStatusRequest()


@contextmanager
def draining(server, channel):
    """Stops a server, with a minute for its calls, while the block runs."""
    stopping = threading.Thread(target=server.stop, args=[60])
    stopping.start()
    health = HealthStub(channel)
    state = HealthCheckResponse.SERVING
    while state == HealthCheckResponse.SERVING:
        state = health.Check(HealthCheckRequest(), timeout=20).status
    yield
    stopping.join(timeout=60)
    assert not stopping.is_alive()


def test_calls_in_flight_end_and_later_ones_are_turned_away(
    serve_toolbox, quick, long_call, wait_for_calls, expect_error
):
    with serve_toolbox(max_workers=1) as (server, stub, channel):
        stub.Predict(quick)
        # The second waits for the one worker; both came before the end.
        calls = [stub.Predict.future(long_call) for _ in range(2)]
        wait_for_calls(server, 2)
        with draining(server, channel):
            for method, request in (
                (stub.Predict, quick),
                (ModelServiceStub(channel).GetModelStatus, STATUS),
            ):
                code, details = expect_error(method, request)
                assert code == "UNAVAILABLE"
                assert "shutting down" in details
            steps = [
                call.result(timeout=60).outputs["done"].int_val[0]
                for call in calls
            ]
        check = HealthStub(channel).Check
        code, _ = expect_error(check, HealthCheckRequest())
    assert steps == [200_000] * 2
    assert code == "UNAVAILABLE"


def test_clients_go_on_at_another_server(captioner_path):
    photos = [b"x" * size for size in range(1, 41)]
    with EmbeddedServer(captioner_path, port=0) as staying:
        leaving = EmbeddedServer(captioner_path, port=0)
        leaving.start()
        both = f"ipv4:127.0.0.1:{leaving.port},127.0.0.1:{staying.port}"
        with CaptionClient(both, backoff_s=0.01, max_attempts=5) as client:
            found = []
            for _, result in client.stream(photos, images_per_request=1):
                if len(found) == 10:
                    stopping = threading.Thread(target=leaving.stop, args=[60])
                    stopping.start()
                found.append(result)
                time.sleep(0.02)
            stopping.join(timeout=60)
    assert [each.error for each in found] == [""] * 40


def test_stop_gives_up_calls_after_its_grace(serve_toolbox, quick, endless):
    with serve_toolbox() as (server, stub, _):
        running = stub.Predict.future(endless)
        stub.Predict(quick)
        server.stop(0.2)
        with pytest.raises(grpc.RpcError) as caught:
            running.result(timeout=20)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def start_grpc():
    grpc.aio.init_grpc_aio()


@pytest.mark.parametrize("grace", [None, 1.0])
def test_no_thread_of_a_stopped_server_goes_on(toolbox_path, grace):
    asyncio.run(start_grpc())  # has a thread of its own, one per process
    before = set(threading.enumerate())
    server = EmbeddedServer(toolbox_path, "toolbox", port=0, rest_port=0)
    server.start()
    started = set(threading.enumerate()) - before
    assert "serving" in {each.name for each in started}
    server.stop(grace)
    for thread in started:
        thread.join(timeout=20)
    assert [each.name for each in started if each.is_alive()] == []
