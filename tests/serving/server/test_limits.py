"""Limits on messages, calls and time."""

import asyncio
import gc
import socket
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_STRING
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras.serving.client import CaptionClient
from bmt_keras.serving.server import EmbeddedServer
from bmt_keras.serving.server.model_config import make_model_config
from bmt_keras.serving.server.run_pool import Limits, RunPool
from bmt_keras.serving.server.status import StatusError

PATH = "/v1/models/toolbox:predict"
PATIENCE = 240
SHOUT = {"signature_name": "shout", "instances": ["t"]}


# === Messages and calls ===


def test_larger_message_is_refused(serve_toolbox, make_request, expect_error):
    with serve_toolbox(max_message_bytes=2000) as (_, stub, _):
        large = make_request("shout", {"text": [b"t" * 2000]})
        code, _ = expect_error(stub.Predict, large)
        assert code == "RESOURCE_EXHAUSTED"
        stub.Predict(make_request("shout", {"text": [b"t" * 1000]}))


def test_messages_and_tensors_are_bounded_by_default(
    serve_toolbox, make_request, expect_error
):
    vast = TensorProto(dtype=DT_STRING, string_val=[b"t"])
    vast.tensor_shape.dim.add(size=2**40)
    with serve_toolbox() as (_, stub, _):
        for text in ([b"t" * (129 << 20)], vast):
            request = make_request("shout", {"text": text})
            code, _ = expect_error(stub.Predict, request, timeout=PATIENCE)
            assert code == "RESOURCE_EXHAUSTED"


def test_compressed_message_is_bounded_once_it_is_expanded(
    serve_toolbox, make_request, quick, expect_error
):
    with serve_toolbox(max_message_bytes=10**5) as (_, stub, _):

        def predict(request, timeout):
            return stub.Predict(
                request, timeout=timeout, compression=grpc.Compression.Gzip
            )

        large = make_request("shout", {"text": [b"t" * 10**6]})
        code, message = expect_error(predict, large)
        assert code == "RESOURCE_EXHAUSTED"
        assert "larger than max" in message
        response = predict(quick, 20)
    assert list(response.outputs["loud"].string_val) == [b"a!"]


def _occupy(server):
    """Keeps a worker busy; returns what frees it."""
    free = threading.Event()
    run = server._pool.run(free.wait, Limits())
    asyncio.run_coroutine_threadsafe(run, server._loop)
    return free


def test_each_of_3000_waiting_calls_gets_its_answer(
    serve_toolbox, quick, wait_until
):
    options = [("grpc.use_local_subchannel_pool", 1)]
    with serve_toolbox(max_workers=1) as (server, *_), ExitStack() as stack:
        free = _occupy(server)
        stack.callback(free.set)
        stubs = []
        for _ in range(6):
            channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options)
            stubs.append(PredictionServiceStub(stack.enter_context(channel)))
        waiting = [
            each.Predict.future(quick, timeout=PATIENCE)
            for _ in range(500)
            for each in stubs
        ]
        # Those that gRPC cancels never reach the pool.
        wait_until(lambda: len(server._pool._calls) == 3001, PATIENCE / 2)
        free.set()
        codes = Counter(call.code().name for call in waiting)
    assert codes == {"OK": 3000}


def test_calls_over_the_limit_are_refused(
    serve_toolbox, quick, endless, wait_for_calls, expect_error, send_rest
):
    limits = {"rest_port": 0, "max_concurrent_calls": 1}
    with serve_toolbox(**limits) as (server, stub, _):
        running = stub.Predict.future(endless, timeout=60)
        wait_for_calls(server, 1)
        code, message = expect_error(stub.Predict, quick)
        # The one code that clients try again.
        assert code == "UNAVAILABLE"
        assert message.startswith("The server is full: 1 calls run or wait")
        rest = f"127.0.0.1:{server.rest_port}"
        assert send_rest(rest, PATH, SHOUT) == (503, {"error": message})
        running.cancel()


def test_client_tries_a_full_server_again(captioner_path, wait_for_calls):
    refused = threading.Event()
    limits = {"max_workers": 1, "max_concurrent_calls": 1}
    with EmbeddedServer(captioner_path, port=0, **limits) as server:
        free = _occupy(server)
        wait_for_calls(server, 1)
        run = server._pool.run

        async def watch(*call):
            try:
                return await run(*call)
            except StatusError:
                refused.set()
                raise

        server._pool.run = watch
        with (
            CaptionClient(f"127.0.0.1:{server.port}") as client,
            ThreadPoolExecutor(1) as thread,
        ):
            caption = thread.submit(client.caption_one, b"photo")
            assert refused.wait(20)
            free.set()
            assert caption.result(timeout=30).caption == "a photo of 5 bytes"


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


def test_request_of_a_client_that_left_is_forgotten():
    async def leave():
        pool, free = RunPool(1, None), threading.Event()
        busy = asyncio.create_task(pool.run(free.wait, Limits()))
        body, limits = np.zeros(9), Limits()
        kept = weakref.ref(body)
        waiting = asyncio.create_task(pool.run(body.sum, limits))
        del body
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        del waiting
        gc.collect()
        with pytest.raises(TimeoutError):
            limits.check()
        assert kept() is None
        free.set()
        await busy
        pool.close()

    asyncio.run(leave())
