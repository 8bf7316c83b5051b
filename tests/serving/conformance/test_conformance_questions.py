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

HALF = "/v1/models/half_plus"
ALL = "/v1/models/half_plus_all"
X = {"x": np.float32([2.0])}
INVALID = "INVALID_ARGUMENT"


# === REST ===


def _status(*versions):
    return {
        "model_version_status": [
            {
                "version": str(version),
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for version in versions
        ]
    }


# path, document (None: GET), code, answer or message
REST = [
    (f"{ALL}/versions/7", None, 200, _status(7)),
    # A status knows no labels.
    (f"{ALL}/labels/stable", None, 200, _status(123, 7)),
    (
        f"{ALL}/versions/9",
        None,
        404,
        "Could not find version 9 of model half_plus_all",
    ),
    (
        f"{ALL}/versions/9/metadata",
        None,
        404,
        "Servable not found for request: Specific(half_plus_all, 9)",
    ),
    (
        f"{ALL}/labels/beta/metadata",
        None,
        400,
        "Unrecognized servable version label: beta",
    ),
    (
        "/v1/models/m/metadata",
        None,
        404,
        "Servable not found for request: Latest(m)",
    ),
    ("/", None, 400, "Malformed request: GET /"),
    (HALF, {}, 400, f"Malformed request: POST {HALF}"),
    (f"{HALF}/metadata", {}, 400, f"Malformed request: POST {HALF}/metadata"),
    (f"{HALF}:predict", None, 400, f"Malformed request: GET {HALF}:predict"),
    (f"{HALF}:run", {}, 400, f"Malformed request: POST {HALF}:run"),
]
# model, document, answer
PREDICTIONS = [
    ("half_plus", {"inputs": 2.0}, {"outputs": 4.0}),
    ("half_plus", {"inputs": {"x": [2.0]}}, {"outputs": [4.0]}),
    ("half_plus", {"inputs": []}, {"outputs": []}),
    ("half_plus", {"instances": [{"x": 2.0}]}, {"predictions": [4.0]}),
    ("half_plus", {"instances": [2]}, {"predictions": [4.0]}),
    (
        "half_plus",
        {"instances": [[2.0, 4.0], [6.0, 8.0]]},
        {"predictions": [[4.0, 5.0], [6.0, 7.0]]},
    ),
    (
        "half_plus",
        {"signature_name": "serving_default", "instances": [2.0]},
        {"predictions": [4.0]},
    ),
    (
        "half_plus",
        {"signature_name": "", "inputs": [2.0], "more": {"a": [None, {}]}},
        {"outputs": [4.0]},
    ),
    ("words", {"instances": ["one", "ten"]}, {"predictions": [1, -1]}),
    ("words", {"inputs": [{"b64": "dHdv"}]}, {"outputs": [2]}),
]


@pytest.mark.parametrize(("path", "document", "code", "answer"), REST)
def test_rest_answers_in_the_words_of_the_contract(
    fetch, path, document, code, answer
):
    expected = answer if code == 200 else {"error": answer}
    # Nothing is kept between two questions.
    assert [fetch(path, document) for _ in range(2)] == [(code, expected)] * 2


@pytest.mark.parametrize(("model", "document", "answer"), PREDICTIONS)
def test_rest_predicts_from_any_form(fetch, model, document, answer):
    assert fetch(f"/v1/models/{model}:predict", document) == (200, answer)


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


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        (
            {"version": {"value": 8}},
            "NOT_FOUND",
            "Servable not found for request: Specific(half_plus_all, 8)",
        ),
        (
            {"version_label": "beta"},
            INVALID,
            "Unrecognized servable version label: beta",
        ),
        ({"name": ""}, INVALID, "ModelSpec has no name specified."),
    ],
)
def test_metadata_of_a_version_that_is_not_there_is_refused(
    prediction, expect_error, spec, code, message
):
    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.CopyFrom(ModelSpec(**{"name": "half_plus_all"} | spec))
    answer = expect_error(prediction.GetModelMetadata, request)
    assert answer == (code, message)


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
