"""Models, servers and requests that the server's tests share."""

import functools
import shutil
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


@pytest.fixture(scope="session")
def publish():
    """Copies a version under another name, then renames it."""

    def copy(source, base, version, spoil=lambda folder: None):
        partial = base / f".{version}"
        shutil.copytree(source, partial)
        spoil(partial)
        partial.rename(base / str(version))

    return copy


@pytest.fixture(scope="session")
def serve():
    """Serves models; gives the server, a stub and its channel."""

    @contextmanager
    def start(models, name, **options):
        with (
            EmbeddedServer(models, name, port=0, **options) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            yield server, PredictionServiceStub(channel), channel

    return start


@pytest.fixture(scope="session")
def serve_toolbox(serve, toolbox_path):
    return functools.partial(serve, toolbox_path, "toolbox")


@pytest.fixture(scope="session")
def quick(make_request):
    """A request that any server of the toolbox answers at once."""
    return make_request("shout", {"text": [b"a"]})


@pytest.fixture(scope="session")
def long_call(make_request):
    """A request that takes its time, and ends."""
    return make_request("spin", {"steps": np.int32(200_000)})


@pytest.fixture(scope="session")
def wait_for_calls(wait_until):
    """Waits until a server has that many calls in flight."""
    return lambda server, count: wait_until(
        lambda: len(server._pool._calls) == count
    )


@pytest.fixture(scope="session")
def endless(make_request):
    return make_request("spin", {"steps": np.int32(2**31 - 1)})
