"""Metadata, status and health."""

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    ModelVersionStatus,
)

INVALID = "INVALID_ARGUMENT"


def _metadata_request(*fields, model="toolbox"):
    request = GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


def _status_request(model="toolbox", version=None):
    request = GetModelStatusRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


def test_metadata_describes_every_signature(predict_stub):
    response = predict_stub.GetModelMetadata(_metadata_request("signature_def"))
    signatures = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "two_inputs"} <= set(signatures.signature_def)
    assert set(signatures.signature_def["two_inputs"].inputs) == {"a", "b"}
    assert response.model_spec.name == "toolbox"
    assert response.model_spec.version.value == 123


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            _metadata_request(),
            INVALID,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            _metadata_request("signature_def", "assets"),
            INVALID,
            "Metadata field assets is not supported",
        ),
        (
            _metadata_request("signature_def", model="m"),
            "NOT_FOUND",
            "Servable not found for request: Latest(m)",
        ),
        (GetModelMetadataRequest(), INVALID, "Missing ModelSpec"),
    ],
)
def test_bad_metadata_request_gets_code_and_message(
    predict_stub, expect_error, request_, code, message
):
    answer = expect_error(predict_stub.GetModelMetadata, request_)
    assert answer == (code, message)


@pytest.mark.parametrize("version", [None, 123])
def test_status_of_served_version_is_available(model_stub, version):
    (status,) = model_stub.GetModelStatus(
        _status_request(version=version)
    ).model_version_status
    assert status.version == 123
    assert status.state == ModelVersionStatus.AVAILABLE
    assert status.HasField("status")
    assert status.status.error_code == 0


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            _status_request("m"),
            "NOT_FOUND",
            "Could not find any versions of model m",
        ),
        (
            _status_request(version=7),
            "NOT_FOUND",
            "Could not find version 7 of model toolbox",
        ),
        (GetModelStatusRequest(), INVALID, "Missing ModelSpec"),
    ],
)
def test_bad_status_request_gets_code_and_message(
    model_stub, expect_error, request_, code, message
):
    answer = expect_error(model_stub.GetModelStatus, request_)
    assert answer == (code, message)


@pytest.mark.parametrize("service", ["", "PredictionService", "ModelService"])
def test_health_is_serving_once_loaded(channel, service):
    answer = HealthStub(channel).Check(HealthCheckRequest(service=service))
    assert answer.status == HealthCheckResponse.SERVING


def test_health_of_unknown_service_is_not_found(channel):
    with pytest.raises(grpc.RpcError) as caught:
        HealthStub(channel).Check(HealthCheckRequest(service="x"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
