"""Metadata, status, health and change of the models, asked from outside."""

import numpy as np
import pytest
from google.protobuf import text_format
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    ModelVersionStatus,
)
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest

INVALID = "INVALID_ARGUMENT"
X = {"x": np.float32([2.0])}


def _ask_metadata(*fields, model="half_plus"):
    request = GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


def _ask_status(model, version=None):
    request = GetModelStatusRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


@pytest.fixture
def change(asked, models):
    """Changes the models to those of the suite, and some more."""

    def send(more=""):
        template = (
            'config {{ name: "{name}" base_path: "{base}/{folder}" '
            'model_platform: "tensorflow" {rest} }}'
        )
        half = "half_plus"
        known = (
            (half, half, ""),
            (
                "half_plus_all",
                half,
                "model_version_policy { all {} } "
                'version_labels { key: "stable" value: 7 } '
                'version_labels { key: "canary" value: 123 }',
            ),
            (
                "half_plus_old",
                half,
                "model_version_policy { specific { versions: 7 } }",
            ),
            *((name, name, "") for name in ("toolbox", "counter", "words")),
        )
        text = "\n".join(
            template.format(name=n, base=asked.base, folder=f, rest=r)
            for n, f, r in known
        )
        request = ReloadConfigRequest()
        text_format.Parse(
            f"model_config_list {{ {text} {more} }}", request.config
        )
        return models.HandleReloadConfigRequest(request, timeout=60)

    yield send
    send()


# === Metadata ===


def test_metadata_holds_every_signature(prediction):
    response = prediction.GetModelMetadata(_ask_metadata("signature_def"))
    signatures = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    assert default.inputs["x"].name == "x:0"
    assert default.outputs["y"].name == "y:0"
    assert response.model_spec.name == "half_plus"
    assert response.model_spec.version.value == 123


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            _ask_metadata(),
            INVALID,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            _ask_metadata("signature_def", "assets", model="m"),
            INVALID,
            "Metadata field assets is not supported",
        ),
        (
            _ask_metadata("signature_def", model="m"),
            "NOT_FOUND",
            "Servable not found for request: Latest(m)",
        ),
        (GetModelMetadataRequest(), INVALID, "Missing ModelSpec"),
    ],
)
def test_bad_metadata_request_is_told(
    prediction, expect_error, request_, code, message
):
    answer = expect_error(prediction.GetModelMetadata, request_)
    assert answer == (code, message)


# === Status ===


def test_status_lists_the_latest_version_first(models):
    statuses = models.GetModelStatus(
        _ask_status("half_plus_all")
    ).model_version_status
    assert [status.version for status in statuses] == [123, 7]
    assert {status.state for status in statuses} == {
        ModelVersionStatus.AVAILABLE
    }
    # Present though empty: no error.
    assert all(status.HasField("status") for status in statuses)
    assert [status.status.error_code for status in statuses] == [0, 0]


def test_status_of_one_version_is_that_alone(models):
    (status,) = models.GetModelStatus(
        _ask_status("half_plus_all", 7)
    ).model_version_status
    assert status.version == 7


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            _ask_status("m"),
            "NOT_FOUND",
            "Could not find any versions of model m",
        ),
        (
            _ask_status("half_plus", 8),
            "NOT_FOUND",
            "Could not find version 8 of model half_plus",
        ),
        (GetModelStatusRequest(), INVALID, "Missing ModelSpec"),
    ],
)
def test_bad_status_request_is_told(
    models, expect_error, request_, code, message
):
    answer = expect_error(models.GetModelStatus, request_)
    assert answer == (code, message)


# === Health and reflection ===


@pytest.mark.parametrize("service", ["", "PredictionService", "ModelService"])
def test_health_is_serving_once_loaded(asked_channel, service):
    request = HealthCheckRequest(service=service)
    answer = HealthStub(asked_channel).Check(request)
    assert answer.status == HealthCheckResponse.SERVING


def test_health_of_another_service_is_not_found(asked_channel, expect_error):
    code, _ = expect_error(
        HealthStub(asked_channel).Check, HealthCheckRequest(service="x")
    )
    assert code == "NOT_FOUND"


def test_reflection_lists_the_services(asked_channel):
    stub = ServerReflectionStub(asked_channel)
    request = ServerReflectionRequest(list_services="")
    (response,) = stub.ServerReflectionInfo(iter([request]))
    names = {each.name for each in response.list_services_response.service}
    assert {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
    } <= names


# === Change ===


def test_new_model_is_there_when_the_change_returns(
    asked, change, prediction, models, make_request, expect_error, wait_until
):
    response = change(
        f'config {{ name: "extra" base_path: "{asked.base}/half_plus" '
        'model_platform: "tensorflow" }'
    )
    assert response.status.error_code == 0
    request = make_request("", X, model="extra")
    assert list(prediction.Predict(request).outputs["y"].float_val) == [4.0]

    change()
    state = ModelVersionStatus.END
    wait_until(
        lambda: (
            [state]
            == [
                each.state
                for each in models.GetModelStatus(
                    _ask_status("extra")
                ).model_version_status
            ]
        )
    )
    assert expect_error(prediction.Predict, request) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(extra)",
    )


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        (
            "",
            INVALID,
            "ServerModelConfig type not supported by "
            "HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" } '
            'config { name: "a" base_path: "/b" } }',
            INVALID,
            "Illegal to list model a multiple times in config list",
        ),
        (
            'model_config_list { config { name: "a" base_path: "b" '
            'model_platform: "tensorflow" } }',
            INVALID,
            "Expected model a to have an absolute path or URI; got "
            "base_path()=b",
        ),
    ],
)
def test_bad_change_is_refused_and_changes_nothing(
    models, prediction, make_request, expect_error, config, code, message
):
    request = text_format.Parse(f"config {{ {config} }}", ReloadConfigRequest())
    answer = expect_error(models.HandleReloadConfigRequest, request)
    assert answer == (code, message)
    response = prediction.Predict(make_request("", X, model="half_plus"))
    assert response.model_spec.version.value == 123


def test_label_cannot_move_to_a_version_that_is_not_there(
    asked, change, expect_error
):
    text = (
        f'config {{ name: "moving" base_path: "{asked.base}/half_plus" '
        'model_platform: "tensorflow" '
        'version_labels { key: "stable" value: %d } }'
    )
    change(text % 123)
    code, message = expect_error(lambda more, timeout: change(more), text % 9)
    assert code == "FAILED_PRECONDITION"
    assert message == (
        "Request to assign label to version 9 of model moving, which is not "
        "currently available for inference"
    )
