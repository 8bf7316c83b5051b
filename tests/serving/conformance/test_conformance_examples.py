"""Classify, Regress and MultiInference, asked from outside."""

import pytest
import tensorflow as tf
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

INVALID = "INVALID_ARGUMENT"
CLASSIFY, REGRESS = (
    "tensorflow/serving/classify",
    "tensorflow/serving/regress",
)


def _example(**features):
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(float_list=tf.train.FloatList(value=[v]))
                for name, v in features.items()
            }
        )
    )


def _ask(kind, signature, values, model="half_plus"):
    request = kind()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(
        _example(x=value) for value in values
    )
    return request


def _classify_request(signature, values=(2.0, -2.0)):
    return _ask(ClassificationRequest, signature, values)


def _regress_request(signature, values=(2.0, 4.0)):
    return _ask(RegressionRequest, signature, values)


def _multi_request(*tasks, values=(2.0,)):
    request = MultiInferenceRequest()
    for model, method, signature in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    request.input.example_list.examples.extend(
        _example(x=value) for value in values
    )
    return request


@pytest.mark.parametrize("signature", ["regress_column", "regress_flat"])
def test_each_example_gets_a_number(prediction, signature):
    response = prediction.Regress(_regress_request(signature))
    assert [each.value for each in response.result.regressions] == [4.0, 5.0]
    assert response.model_spec.signature_name == signature
    assert response.model_spec.version.value == 123


def test_scores_alone_have_empty_labels(prediction):
    response = prediction.Classify(_classify_request("classify_scores"))
    rows = [
        [(each.label, each.score) for each in row.classes]
        for row in response.result.classifications
    ]
    assert rows == [[("", 4.0)], [("", 2.0)]]


def test_classes_come_with_their_scores(prediction):
    response = prediction.Classify(_classify_request("classify_both"))
    rows = [
        [(each.label, each.score) for each in row.classes]
        for row in response.result.classifications
    ]
    assert rows == [[("+", 4.0), ("any", -4.0)], [("-", 2.0), ("any", -2.0)]]


def test_context_belongs_to_every_example(prediction):
    request = _regress_request("regress_flat", ())
    with_context = request.input.example_list_with_context
    with_context.context.CopyFrom(_example(x=2.0))
    with_context.examples.extend([_example(), _example(x=4.0)])
    response = prediction.Regress(request)
    assert [each.value for each in response.result.regressions] == [4.0, 5.0]


FAILURES = {
    "unknown signature to classify": (
        ("Classify", _classify_request("x")),
        "No signature was found with the name: x",
    ),
    "unknown signature to regress": (
        ("Regress", _regress_request("x")),
        "No signature was found with the name: x",
    ),
    "signature of another method": (
        ("Classify", _classify_request("")),
        "Expected classification signature method_name to be "
        "tensorflow/serving/classify. Was: tensorflow/serving/predict",
    ),
    "no example to classify": (
        ("Classify", _classify_request("classify_both", ())),
        "Input is empty.",
    ),
    "no example to regress": (
        ("Regress", _regress_request("regress_flat", ())),
        "Input is empty.",
    ),
    "two numbers an example": (
        ("Regress", _regress_request("regress_wide")),
        "Expected output Tensor shape to be either [batch_size] or "
        "[batch_size, 1] but got [2,2]",
    ),
    "no model_spec": (
        ("Classify", ClassificationRequest()),
        "Missing ModelSpec",
    ),
    "duplicate task": (
        (
            "MultiInference",
            _multi_request(
                ("half_plus", REGRESS, "regress_flat"),
                ("half_plus", REGRESS, "regress_flat"),
            ),
        ),
        "Duplicate evaluation of signature: regress_flat",
    ),
    "two models": (
        (
            "MultiInference",
            _multi_request(
                ("half_plus", REGRESS, "regress_flat"),
                ("half_plus_all", REGRESS, "regress_column"),
            ),
        ),
        "All ModelSpecs in a MultiInferenceRequest must access the same model "
        "name.",
    ),
    "two inputs": (
        (
            "MultiInference",
            _multi_request(
                ("half_plus", REGRESS, "regress_flat"),
                ("half_plus", REGRESS, "regress_other"),
            ),
        ),
        "Input tensor must be the same for all Signatures.",
    ),
    "unknown signature of a task": (
        ("MultiInference", _multi_request(("half_plus", REGRESS, "x"))),
        "Requested signature not found in model graph: x",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_bad_request_is_an_invalid_argument(prediction, expect_error, case):
    (method, request), message = FAILURES[case]
    answer = expect_error(getattr(prediction, method), request)
    assert answer == (INVALID, message)


def test_tasks_share_one_run(prediction):
    response = prediction.MultiInference(
        _multi_request(
            ("half_plus", CLASSIFY, "classify_both"),
            ("half_plus", REGRESS, "regress_flat"),
        )
    )
    classified, regressed = response.results
    (row,) = classified.classification_result.classifications
    assert [each.label for each in row.classes] == ["+", "any"]
    assert regressed.regression_result.regressions[0].value == 4.0
    assert regressed.model_spec.signature_name == "regress_flat"
    assert regressed.model_spec.version.value == 123


def test_task_of_another_method_is_unimplemented(prediction, expect_error):
    method = "tensorflow/serving/predict"
    request = _multi_request(("half_plus", method, "serving_default"))
    assert expect_error(prediction.MultiInference, request) == (
        "UNIMPLEMENTED",
        f"Unsupported signature method_name: {method}",
    )
