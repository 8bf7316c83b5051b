"""A server to ask: one that is named in the environment, or one of ours."""

import functools
import os
import runpy
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras.serving.server import EmbeddedServer, read_model_config

MODELS = Path(__file__).with_name("conformance_models.py")


@dataclass(frozen=True)
class Asked:
    """Where a server listens, and where it sees its models."""

    target: str
    rest: str
    base: str


@pytest.fixture(scope="session")
def asked(request):
    target = os.environ.get("BMT_SERVING_TARGET")
    if target is not None:
        host = target.rsplit(":", maxsplit=1)[0]
        yield Asked(
            target,
            os.environ.get("BMT_SERVING_REST", f"{host}:8501"),
            os.environ.get("BMT_SERVING_BASE", "/models"),
        )
        return
    folder = request.getfixturevalue("served_models")
    models = read_model_config(folder / "models.config")
    with EmbeddedServer(models, port=0, rest_port=0) as server:
        yield Asked(
            f"127.0.0.1:{server.port}",
            f"127.0.0.1:{server.rest_port}",
            str(folder),
        )


@pytest.fixture(scope="session")
def asked_channel(asked):
    with grpc.insecure_channel(asked.target) as channel:
        yield channel


@pytest.fixture(scope="session")
def prediction(asked_channel):
    return PredictionServiceStub(asked_channel)


@pytest.fixture(scope="session")
def models(asked_channel):
    return ModelServiceStub(asked_channel)


@pytest.fixture(scope="session")
def fetch(asked, send_rest):
    """Sends a REST request; returns the code and the document."""
    return functools.partial(send_rest, asked.rest)


@pytest.fixture
def change(asked, models):
    """Changes the models to those of the suite, and some more."""

    make_config = runpy.run_path(str(MODELS))["make_config"]

    def send(more=None, timeout=60):
        text = make_config(asked.base, more or {})
        request = ReloadConfigRequest()
        text_format.Parse(text, request.config)
        return models.HandleReloadConfigRequest(request, timeout=timeout)

    yield send
    send()
