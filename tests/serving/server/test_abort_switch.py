"""Runs of a model that are given up, and models that a switch must not harm."""

import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from bmt_keras.serving.server.cancel_token import CancelToken
from bmt_keras.serving.server.classify import classify
from bmt_keras.serving.server.multi_inference import multi_inference
from bmt_keras.serving.server.predict import predict
from bmt_keras.serving.server.regress import regress
from bmt_keras.serving.server.servable import Servable
from bmt_keras.serving.server.status import StatusError
from bmt_keras.serving.server.version_folders import find_version_folders

v1 = tf.compat.v1


def _load(path):
    return Servable(find_version_folders(path)[-1])


@pytest.fixture(scope="module")
def toolbox(toolbox_path):
    servable = _load(toolbox_path)
    yield servable
    servable.close()


@pytest.fixture(scope="module")
def half_plus(served_models):
    servable = _load(served_models / "half_plus")
    yield servable
    servable.close()


def _cancelled():
    token = CancelToken()
    token.cancel()
    return token


def _end_of(servable, request, token):
    with pytest.raises(StatusError) as caught:
        predict(servable, request, cancel=token)
    return caught.value.code


# === Runs that end early ===


def test_more_runs_than_threads_are_ended_one_by_one(toolbox, endless, quick):
    tokens = [CancelToken() for _ in range(20)]
    codes = []
    threads = [
        threading.Thread(
            target=lambda token: codes.append(_end_of(toolbox, endless, token)),
            args=(token,),
        )
        for token in tokens
    ]
    for thread in threads:
        thread.start()
    for token in tokens:
        token.cancel()
    for thread in threads:
        thread.join()
    assert codes == [grpc.StatusCode.CANCELLED] * 20
    loud = predict(toolbox, quick).outputs["loud"].string_val
    assert list(loud) == [b"a!"]


def test_cancelled_run_leaves_another_alone(toolbox, endless, long_call):
    found = []
    other = threading.Thread(
        target=lambda: found.append(predict(toolbox, long_call))
    )
    other.start()
    token = CancelToken()
    timer = threading.Timer(0.1, token.cancel)
    timer.start()
    assert _end_of(toolbox, endless, token) == grpc.StatusCode.CANCELLED
    other.join()
    assert found[0].outputs["done"].int_val[0] == 200_000


def test_every_kind_of_request_can_be_cancelled(half_plus, make_request):
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0]))
    example = tf.train.Example(
        features=tf.train.Features(feature={"x": feature})
    )
    calls = [(predict, make_request("", {"x": np.float32(1)}))]
    classes, number = ClassificationRequest(), RegressionRequest()
    heads = MultiInferenceRequest()
    for call, request, signature in (
        (classify, classes, "classify_both"),
        (regress, number, "regress_column"),
    ):
        request.model_spec.name = "half_plus"
        request.model_spec.signature_name = signature
        request.input.example_list.examples.append(example)
        heads.tasks.add(
            model_spec=request.model_spec,
            method_name=f"tensorflow/serving/{call.__name__}",
        )
        calls.append((call, request))
    heads.input.CopyFrom(classes.input)
    calls.append((multi_inference, heads))
    for call, request in calls:
        call(half_plus, request, cancel=CancelToken())
        with pytest.raises(StatusError) as caught:
            call(half_plus, request, cancel=_cancelled())
        assert caught.value.code == grpc.StatusCode.CANCELLED
        call(half_plus, request)


def test_cancelling_a_finished_run_changes_nothing(toolbox, quick):
    token = CancelToken()
    predict(toolbox, quick, cancel=token)
    token.cancel()
    loud = predict(toolbox, quick).outputs["loud"].string_val
    assert list(loud) == [b"a!"]


def test_failed_and_timed_out_runs_leave_nothing_behind(
    toolbox, make_request, endless, quick
):
    wrong = make_request("to_number", {"text": b"word"})
    for request, options, code in (
        (wrong, {}, "INVALID_ARGUMENT"),
        (endless, {"timeout_ms": 20}, "DEADLINE_EXCEEDED"),
    ):
        # More than there are queues, each of which serves again.
        for _ in range(20):
            with pytest.raises(StatusError) as caught:
                predict(toolbox, request, **options)
            assert caught.value.code.name == code
    right = make_request("to_number", {"text": b"2"})
    for _ in range(20):
        assert predict(toolbox, right).outputs["number"].float_val[0] == 2
        predict(toolbox, quick)


# === Models out of the ordinary ===


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A model of TensorFlow 1: branches, loops and outputs that are inputs."""
    base = tmp_path_factory.mktemp("odd")
    with v1.Session(graph=tf.Graph()) as session:
        v1.disable_control_flow_v2()
        x = v1.placeholder(tf.int32, [], name="x")
        low, high = v1.raw_ops.Switch(data=x, pred=x > 0)
        last = v1.while_loop(lambda i: i < x, lambda i: i + 1, [0])
        v1.enable_control_flow_v2()
        tensors = {"x": x, "low": low, "high": high, "last": last}
        tensors["middle"] = tf.identity(x * 2, name="middle")
        tensors["after"] = tensors["middle"] + 1
        build = v1.saved_model.build_tensor_info
        outputs = {name: build(tensor) for name, tensor in tensors.items()}
        signatures = {
            feed: v1.saved_model.build_signature_def(
                inputs={feed: build(tensors[feed])},
                outputs=outputs,
                method_name="tensorflow/serving/predict",
            )
            for feed in ("x", "middle")
        }
        builder = v1.saved_model.Builder(str(base / "1"))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    servable = _load(base)
    yield servable
    servable.close()


def _ask(servable, make_request, feed, value, outputs, **options):
    request = make_request(feed, {feed: np.int32(value)}, outputs=outputs)
    response = predict(servable, request, **options)
    return [response.outputs[name].int_val[0] for name in outputs]


def test_loop_outside_of_functions_is_cancelled(odd, make_request):
    token = CancelToken()
    threading.Timer(0.2, token.cancel).start()
    with pytest.raises(StatusError) as caught:
        _ask(odd, make_request, "x", 2**31 - 1, ["last"], cancel=token)
    assert caught.value.code == grpc.StatusCode.CANCELLED
    assert _ask(odd, make_request, "x", 3, ["last", "after"]) == [3, 7]


def test_output_may_be_fed(odd, make_request):
    assert _ask(odd, make_request, "x", 5, ["middle", "after"]) == [10, 11]
    assert _ask(odd, make_request, "middle", 5, ["after"]) == [6]
    # This is the runtime's own rule.
    with pytest.raises(StatusError, match="both fed and fetched"):
        _ask(odd, make_request, "middle", 5, ["middle"])


def test_output_of_a_branch_not_taken_is_an_error_as_without_a_switch(
    odd, make_request
):
    assert _ask(odd, make_request, "x", 1, ["high"]) == [1]
    with pytest.raises(StatusError, match="does not have value"):
        _ask(odd, make_request, "x", 1, ["low"])
    assert _ask(odd, make_request, "x", -1, ["low"]) == [-1]
