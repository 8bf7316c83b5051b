"""The questions of TensorFlow Serving's own black-box tests, in our words."""

import numpy as np
import pytest
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    ModelVersionStatus,
)
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec

ALL = "/v1/models/half_plus_all"
X = {"x": np.float32([2.0])}
INVALID = "INVALID_ARGUMENT"


# === Which version ===


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        ({}, 123),
        ({"version": {"value": 7}}, 7),
        ({"version": {"value": 123}}, 123),
        ({"version_label": "stable"}, 7),
        ({"version_label": "canary"}, 123),
    ],
)
def test_metadata_is_that_of_the_asked_version(
    prediction, fetch, spec, version
):
    request = GetModelMetadataRequest(
        model_spec=ModelSpec(name="half_plus_all", **spec),
        metadata_field=["signature_def"],
    )
    response = prediction.GetModelMetadata(request, timeout=20)
    assert response.model_spec.version.value == version
    path = ALL
    if "version" in spec:
        path += f"/versions/{version}"
    if "version_label" in spec:
        path += f"/labels/{spec['version_label']}"
    code, answer = fetch(f"{path}/metadata")
    assert (code, answer["model_spec"]["version"]) == (200, str(version))


def test_readiness_is_asked_with_a_model_that_is_not_there(
    prediction, make_request, expect_error
):
    code, message = expect_error(
        prediction.Predict, make_request("", model="__not_there__")
    )
    assert (code, "Servable" in message) == ("NOT_FOUND", True)


# === States ===

# The configuration of a model, and its versions that answer then.
STATES = {
    "not yet": (None, set()),
    "latest": ("", {123}),
    "all": ("model_version_policy { all {} }", {7, 123}),
    "latest of two": (
        "model_version_policy { latest { num_versions: 2 } }",
        {7, 123},
    ),
    "specific": ("model_version_policy { specific { versions: 7 } }", {7}),
    "none on disk": (
        "model_version_policy { specific { versions: 9 } }",
        set(),
    ),
    "latest again": ("", {123}),
    "removed": (None, set()),
}


def test_states_follow_the_configuration(
    change, models, prediction, fetch, make_request, expect_error, wait_until
):
    name = "of_many_states"
    asked = GetModelStatusRequest(model_spec={"name": name})

    def find_available():
        return {
            status.version
            for status in models.GetModelStatus(asked).model_version_status
            if status.state == ModelVersionStatus.AVAILABLE
        }

    for state, (rest, versions) in STATES.items():
        change({} if rest is None else {name: ("half_plus", rest)})
        if state == "not yet":
            code, _ = expect_error(models.GetModelStatus, asked)
            assert (code, fetch(f"/v1/models/{name}")[0]) == ("NOT_FOUND", 404)
            continue
        wait_until(lambda versions=versions: find_available() == versions)
        _, answer = fetch(f"/v1/models/{name}")
        states = {
            int(status["version"]): status["state"]
            for status in answer["model_version_status"]
        }
        assert {n for n, each in states.items() if each == "AVAILABLE"} == (
            versions
        )
        for version in (7, 123):
            request = make_request("", X, model=name, version=version)
            if version in versions:
                found = prediction.Predict(request, timeout=20).model_spec
                assert found.version.value == version
            else:
                assert expect_error(prediction.Predict, request) == (
                    "NOT_FOUND",
                    f"Servable not found for request: Specific({name}, "
                    f"{version})",
                )


def test_label_moves_between_versions_that_are_there(
    change, prediction, make_request, expect_error
):
    name = "of_labels"
    policy = "model_version_policy { all {} } "
    request = make_request("", X, model=name, label="stable")
    for version in (7, 123, 7):
        label = f'version_labels {{ key: "stable" value: {version} }}'
        # A new label names what was loaded before.
        change({name: ("half_plus", policy)})
        change({name: ("half_plus", policy + label)})
        found = prediction.Predict(request, timeout=20).model_spec
        assert found.version.value == version
    change({name: ("half_plus", policy)})
    assert expect_error(prediction.Predict, request) == (
        INVALID,
        "Unrecognized servable version label: stable",
    )


def test_empty_list_unloads_every_model(
    change, models, prediction, make_request, expect_error, wait_until
):
    request = ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    models.HandleReloadConfigRequest(request, timeout=60)
    half = make_request("", X, model="half_plus")

    def is_gone():
        code, _ = expect_error(prediction.Predict, half)
        return code == "NOT_FOUND"

    wait_until(is_gone)
    change()
    assert prediction.Predict(half, timeout=20).model_spec.version.value == 123
