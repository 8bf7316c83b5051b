"""Metadata, status, health and change of the models, asked from outside."""

import numpy as np
import pytest
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


def _ask_metadata(*fields, model="half_plus", **spec):
    return GetModelMetadataRequest(
        model_spec={"name": model, **spec}, metadata_field=fields
    )


def _ask_status(model, **spec):
    return GetModelStatusRequest(model_spec={"name": model, **spec})


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
        (
            _ask_metadata(
                "signature_def", model="half_plus_all", version={"value": 8}
            ),
            "NOT_FOUND",
            "Servable not found for request: Specific(half_plus_all, 8)",
        ),
        (
            _ask_metadata("signature_def", version_label="beta"),
            INVALID,
            "Unrecognized servable version label: beta",
        ),
        (
            _ask_metadata("signature_def", model=""),
            INVALID,
            "ModelSpec has no name specified.",
        ),
        (GetModelMetadataRequest(), INVALID, "Missing ModelSpec"),
        (
            _ask_status("m"),
            "NOT_FOUND",
            "Could not find any versions of model m",
        ),
        (
            _ask_status("half_plus", version={"value": 8}),
            "NOT_FOUND",
            "Could not find version 8 of model half_plus",
        ),
        (GetModelStatusRequest(), INVALID, "Missing ModelSpec"),
    ],
)
def test_bad_question_is_reported(
    prediction, models, expect_error, request_, code, message
):
    method = type(request_).__name__.removesuffix("Request")
    service = prediction if method == "GetModelMetadata" else models
    answer = expect_error(getattr(service, method), request_)
    assert answer == (code, message)


# === Status ===


def test_status_lists_the_latest_version_first(models):
    statuses = models.GetModelStatus(
        _ask_status("half_plus_all")
    ).model_version_status
    assert [status.version for status in statuses] == [123, 7]
    for status in statuses:
        assert status.state == ModelVersionStatus.AVAILABLE
        # Present though empty: no error.
        assert status.HasField("status")
        assert status.status.error_code == 0


def test_status_of_one_version_is_that_alone(models):
    request = _ask_status("half_plus_all", version={"value": 7})
    (status,) = models.GetModelStatus(request).model_version_status
    assert status.version == 7


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
    change, prediction, models, make_request, expect_error, wait_until
):
    assert change({"extra": ("half_plus", "")}).status.error_code == 0
    request = make_request("", X, model="extra")
    assert list(prediction.Predict(request).outputs["y"].float_val) == [4.0]

    change()
    status = _ask_status("extra")

    def has_ended():
        (answer,) = models.GetModelStatus(status).model_version_status
        return answer.state == ModelVersionStatus.END

    wait_until(has_ended)
    assert expect_error(prediction.Predict, request) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(extra)",
    )


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            (),
            "ServerModelConfig type not supported by "
            "HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported",
        ),
        (
            ("/a", "/b"),
            "Illegal to list model a multiple times in config list",
        ),
        (
            ("b",),
            "Expected model a to have an absolute path or URI; got "
            "base_path()=b",
        ),
    ],
)
def test_bad_change_is_refused_and_changes_nothing(
    models, prediction, make_request, expect_error, paths, message
):
    request = ReloadConfigRequest()
    for path in paths:
        request.config.model_config_list.config.add(
            name="a", base_path=path, model_platform="tensorflow"
        )
    answer = expect_error(models.HandleReloadConfigRequest, request)
    assert answer == (INVALID, message)
    response = prediction.Predict(make_request("", X, model="half_plus"))
    assert response.model_spec.version.value == 123


def test_label_cannot_move_to_a_version_that_is_not_there(change, expect_error):
    def move(version, timeout=60):
        label = f'version_labels {{ key: "stable" value: {version} }}'
        return change({"moving": ("half_plus", label)}, timeout)

    move(123)
    assert expect_error(move, 9) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 9 of model moving, which is not "
        "currently available for inference",
    )
