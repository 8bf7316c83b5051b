"""Limits, TLS, reflection, metrics and the end of a server."""

import json
import socket
import subprocess
import threading
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList

from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer, TlsFiles

X = {"x": np.float32([1.0])}


def _post(server, path, document):
    url = f"http://127.0.0.1:{server.rest_port}{path}"
    body = json.dumps(document).encode()
    try:
        with urllib.request.urlopen(url, body, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def _endless(make_request, model="toolbox"):
    return make_request("spin", {"steps": np.int32(2**31 - 1)}, model=model)


# === Limits ===


def test_larger_message_is_refused_on_both_ports(
    toolbox_path, make_request, expect_error
):
    with (
        EmbeddedServer(
            toolbox_path,
            "toolbox",
            port=0,
            rest_port=0,
            max_message_bytes=2000,
        ) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = PredictionServiceStub(channel)
        large = make_request("shout", {"text": [b"t" * 2000]})
        code, _ = expect_error(stub.Predict, large)
        assert code == "RESOURCE_EXHAUSTED"
        stub.Predict(make_request("shout", {"text": [b"t" * 1000]}))

        path = "/v1/models/toolbox:predict"
        large = {"signature_name": "shout", "instances": ["t" * 10**6]}
        code, answer = _post(server, path, large)
        assert (code, set(answer)) == (429, {"error"})
        assert _post(server, path, {"instances": [1.0]})[0] == 200


def test_calls_over_the_limit_are_refused(
    toolbox_path, make_request, expect_error
):
    with (
        EmbeddedServer(
            toolbox_path,
            "toolbox",
            port=0,
            rest_port=0,
            max_concurrent_calls=1,
        ) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = PredictionServiceStub(channel)
        stub.Predict(make_request("", X))
        running = stub.Predict.future(_endless(make_request), timeout=30)
        code = "OK"
        while code == "OK" and not running.done():
            # The endless call may not have arrived yet.
            try:
                stub.Predict(make_request("", X))
            except grpc.RpcError as error:
                code = error.code().name
        assert code == "RESOURCE_EXHAUSTED"
        running.cancel()

        with server._rest.admit_call():
            answer = _post(
                server, "/v1/models/toolbox:predict", {"instances": [1.0]}
            )
        assert answer == (429, {"error": "Concurrent RPC limit exceeded!"})


# === TLS ===


def _openssl(folder, *arguments):
    subprocess.run(
        ["openssl", *arguments], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """An authority with a server and a client that it has signed."""
    folder = tmp_path_factory.mktemp("pem")
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-subj")
    _openssl(
        folder,
        *(*new, "/CN=authority", "-x509", "-days", "2"),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for who in ("server", "client"):
        _openssl(
            folder,
            *(*new, f"/CN={who}", "-keyout", f"{who}.key"),
            *("-out", f"{who}.csr"),
        )
        _openssl(
            folder,
            *("x509", "-req", "-in", f"{who}.csr", "-days", "2"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-extfile", "names", "-out", f"{who}.pem"),
        )
    return folder


def _secure_channel(pem, server, *, with_certificate=False):
    key, certificate = (
        (pem / f"client.{end}").read_bytes() if with_certificate else None
        for end in ("key", "pem")
    )
    credentials = grpc.ssl_channel_credentials(
        (pem / "ca.pem").read_bytes(), key, certificate
    )
    return grpc.secure_channel(f"127.0.0.1:{server.port}", credentials)


def test_tls_encrypts_the_port(toolbox_path, pem, make_request, expect_error):
    tls = TlsFiles(pem / "server.key", pem / "server.pem")
    with EmbeddedServer(toolbox_path, "toolbox", port=0, tls=tls) as server:
        with _secure_channel(pem, server) as channel:
            PredictionServiceStub(channel).Predict(make_request("", X))
        plain = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        with plain as channel:
            stub = PredictionServiceStub(channel)
            code, _ = expect_error(stub.Predict, make_request("", X))
    assert code == "UNAVAILABLE"


def test_mutual_tls_demands_a_certificate(
    toolbox_path, pem, make_request, expect_error
):
    tls = TlsFiles(pem / "server.key", pem / "server.pem", pem / "ca.pem")
    with EmbeddedServer(toolbox_path, "toolbox", port=0, tls=tls) as server:
        with _secure_channel(pem, server, with_certificate=True) as channel:
            PredictionServiceStub(channel).Predict(make_request("", X))
        with _secure_channel(pem, server) as channel:
            stub = PredictionServiceStub(channel)
            code, _ = expect_error(stub.Predict, make_request("", X))
    assert code == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("key", "certificate", "client_ca"),
    [
        ("client.key", "server.pem", None),
        ("server.key", "names", None),
        ("server.key", "nowhere.pem", None),
        ("server.key", "server.pem", "names"),
    ],
)
def test_bad_tls_files_are_told(toolbox_path, pem, key, certificate, client_ca):
    tls = TlsFiles(pem / key, pem / certificate, client_ca and pem / client_ca)
    server = EmbeddedServer(toolbox_path, "toolbox", port=0, tls=tls)
    with pytest.raises(ServingError, match=r"TLS needs .* Cannot use"):
        server.start()


# === Reflection, metrics, the end ===


def test_reflection_lists_the_services(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = stub.ServerReflectionInfo(iter([request]))
    names = {each.name for each in response.list_services_response.service}
    assert {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    } <= names


def test_metrics_count_calls_by_model_and_code(
    toolbox_path, make_request, expect_error
):
    with (
        EmbeddedServer(toolbox_path, "toolbox", port=0, rest_port=0) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = PredictionServiceStub(channel)
        for _ in range(2):
            stub.Predict(make_request("", X))
        expect_error(stub.Predict, make_request("", model='m"'))
        _post(server, "/v1/models/toolbox:predict", {"instances": [1.0]})
        url = (
            f"http://127.0.0.1:{server.rest_port}/monitoring/prometheus/metrics"
        )
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
    counter, latency = (
        f":tensorflow:serving:request_{name}" for name in ("count", "latency")
    )
    assert f"# TYPE {counter} counter" in lines
    assert f'{counter}{{model_name="toolbox",status="OK"}} 3' in lines
    assert f'{counter}{{model_name="m\\"",status="NOT_FOUND"}} 1' in lines
    labels = 'model_name="toolbox",API="Predict",entrypoint="GRPC"'
    assert f"{latency}_count{{{labels}}} 2" in lines
    assert f'{latency}_bucket{{{labels},le="+Inf"}} 2' in lines
    assert f'{latency}_bucket{{{labels},le="10"}} 0' in lines
    # The twentieth of the limits 10 * 1.8**n.
    assert any(f'{labels},le="708235"' in line for line in lines)


def test_stop_lets_calls_in_flight_end(toolbox_path, make_request):
    server = EmbeddedServer(toolbox_path, "toolbox", port=0, rest_port=0)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = PredictionServiceStub(channel)
        running = stub.Predict.future(
            make_request("spin", {"steps": np.int32(200_000)})
        )
        # Answered on the same connection after the call before it came.
        stub.Predict(make_request("", X))
        stopping = threading.Thread(target=server.stop, args=[60])
        stopping.start()
        response = running.result(timeout=60)
        stopping.join(timeout=60)
        assert not stopping.is_alive()
        with pytest.raises(grpc.RpcError) as caught:
            HealthStub(channel).Check(HealthCheckRequest(), timeout=20)
    assert response.outputs["done"].int_val[0] == 200_000
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_stop_gives_up_calls_after_its_grace(toolbox_path, make_request):
    server = EmbeddedServer(toolbox_path, "toolbox", port=0)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = PredictionServiceStub(channel)
        running = stub.Predict.future(_endless(make_request))
        stub.Predict(make_request("", X))
        server.stop(0.2)
        with pytest.raises(grpc.RpcError):
            running.result(timeout=20)


# === A client that goes away ===


def test_waiting_call_of_a_client_that_left_never_runs(
    toolbox_path, counter_path, make_request, expect_error
):
    models = ModelConfigList()
    for name, path in (("toolbox", toolbox_path), ("counter", counter_path)):
        models.config.add(
            name=name, base_path=str(path), model_platform="tensorflow"
        )
    add = make_request("", {"by": np.int64(1000), "unit": ""}, model="counter")
    read = make_request("", {"by": np.int64(0), "unit": ""}, model="counter")
    with EmbeddedServer(models, port=0, max_workers=1) as server:
        address = f"127.0.0.1:{server.port}"
        with grpc.insecure_channel(address) as channel:
            stub = PredictionServiceStub(channel)
            stub.Predict(read)
            busy = stub.Predict.future(_endless(make_request), timeout=3.0)
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


def test_rest_request_without_its_length_is_told(toolbox_path):
    with (
        EmbeddedServer(toolbox_path, "toolbox", port=0, rest_port=0) as server,
        socket.create_connection(("127.0.0.1", server.rest_port)) as client,
    ):
        client.sendall(
            b"POST /v1/models/toolbox:predict HTTP/1.1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"must give its Content-Length" in answer


def test_rest_client_that_leaves_harms_no_other(toolbox_path):
    with EmbeddedServer(toolbox_path, "toolbox", port=0, rest_port=0) as server:
        for part in (b"POST", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"):
            with socket.create_connection(
                ("127.0.0.1", server.rest_port)
            ) as client:
                client.sendall(part)
        path = "/v1/models/toolbox:predict"
        assert _post(server, path, {"instances": [1.0]})[0] == 200
