"""Limits on messages, calls and time."""

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList

from bmt_keras.serving.server import EmbeddedServer
from bmt_keras.serving.server.predict import predict
from bmt_keras.serving.server.servable import Servable
from bmt_keras.serving.server.status import StatusError
from bmt_keras.serving.server.version_folders import find_version_folders

PATH = "/v1/models/toolbox:predict"


def _shout(text):
    return {"signature_name": "shout", "instances": [text]}


# === Messages and calls ===


def test_larger_message_is_refused_on_both_ports(
    serve_toolbox, make_request, expect_error, send_rest
):
    with serve_toolbox(rest_port=0, max_message_bytes=2000) as (
        server,
        stub,
        _,
    ):
        large = make_request("shout", {"text": [b"t" * 2000]})
        code, _ = expect_error(stub.Predict, large)
        assert code == "RESOURCE_EXHAUSTED"
        stub.Predict(make_request("shout", {"text": [b"t" * 1000]}))

        rest = f"127.0.0.1:{server.rest_port}"
        code, answer = send_rest(rest, PATH, _shout("t" * 10**6))
        assert (code, set(answer)) == (429, {"error"})
        assert send_rest(rest, PATH, _shout("t"))[0] == 200


def test_calls_over_the_limit_are_refused(
    serve_toolbox, quick, endless, send_rest
):
    with serve_toolbox(rest_port=0, max_concurrent_calls=1) as (
        server,
        stub,
        _,
    ):
        stub.Predict(quick)
        running = stub.Predict.future(endless, timeout=30)
        code = "OK"
        while code == "OK" and not running.done():
            # The endless call may not have arrived yet.
            try:
                stub.Predict(quick)
            except grpc.RpcError as error:
                code = error.code().name
        assert code == "RESOURCE_EXHAUSTED"
        running.cancel()

        rest = f"127.0.0.1:{server.rest_port}"
        with server._rest.admit_call():
            answer = send_rest(rest, PATH, _shout("t"))
        assert answer == (429, {"error": "Concurrent RPC limit exceeded!"})


# === Time ===


def test_timeout_ends_a_run(toolbox_path, endless):
    servable = Servable(find_version_folders(toolbox_path)[-1])
    with pytest.raises(StatusError) as caught:
        predict(servable, endless, timeout_ms=50)
    servable.close()
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_deadline_of_a_call_frees_its_worker(
    serve_toolbox, quick, endless, expect_error
):
    with serve_toolbox(max_workers=1) as (_, stub, _):
        code, _ = expect_error(stub.Predict, endless, timeout=0.3)
        response = stub.Predict(quick, timeout=20)
    assert code == "DEADLINE_EXCEEDED"
    assert list(response.outputs["loud"].string_val) == [b"a!"]


def test_waiting_call_of_a_client_that_left_never_runs(
    toolbox_path, counter_path, make_request, endless, expect_error
):
    models = ModelConfigList()
    for name, path in (("toolbox", toolbox_path), ("counter", counter_path)):
        models.config.add(
            name=name, base_path=str(path), model_platform="tensorflow"
        )
    add = make_request("", {"by": np.int64(1000)}, model="counter")
    read = make_request("", {"by": np.int64(0)}, model="counter")
    with EmbeddedServer(models, port=0, max_workers=1) as server:
        address = f"127.0.0.1:{server.port}"
        with grpc.insecure_channel(address) as channel:
            stub = PredictionServiceStub(channel)
            stub.Predict(read)
            busy = stub.Predict.future(endless, timeout=3.0)
            with grpc.insecure_channel(address) as leaving:
                grpc.channel_ready_future(leaving).result(timeout=20)
                waiting = PredictionServiceStub(leaving).Predict.future(add)
                code, _ = expect_error(stub.Predict, read, timeout=0.3)
                assert code == "DEADLINE_EXCEEDED"
                waiting.cancel()
            with pytest.raises(grpc.RpcError):
                busy.result()
            response = stub.Predict(read, timeout=20)
    assert response.outputs["total"].int64_val[0] == 0
