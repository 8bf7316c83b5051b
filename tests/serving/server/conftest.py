"""Models, servers and requests that the server's tests share."""

import time
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras.serving.server import EmbeddedServer


@pytest.fixture(scope="session")
def toolbox_path(served_models):
    return served_models / "toolbox"


@pytest.fixture(scope="session")
def counter_path(served_models):
    return served_models / "counter"


@pytest.fixture
def serve_toolbox(toolbox_path):
    """Serves the toolbox; gives the server, a stub and its channel."""

    @contextmanager
    def serve(**options):
        with (
            EmbeddedServer(toolbox_path, "toolbox", port=0, **options) as s,
            grpc.insecure_channel(f"127.0.0.1:{s.port}") as channel,
        ):
            yield s, PredictionServiceStub(channel), channel

    return serve


@pytest.fixture(scope="session")
def quick(make_request):
    """A request that any server of the toolbox answers at once."""
    return make_request("shout", {"text": [b"a"]})


@pytest.fixture(scope="session")
def long_call(make_request):
    """A request that takes its time, and ends."""
    return make_request("spin", {"steps": np.int32(200_000)})


@pytest.fixture(scope="session")
def wait_for_calls():
    """Waits until a server has that many calls in flight."""

    def wait(server, count):
        end = time.monotonic() + 20
        while server._pool._num_calls != count:
            assert time.monotonic() < end
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def endless(make_request):
    return make_request("spin", {"steps": np.int32(2**31 - 1)})
