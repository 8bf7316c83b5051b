"""TLS of the gRPC port, with or without certificates of the clients."""

import subprocess

import grpc
import pytest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer, TlsFiles


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


def test_tls_encrypts_the_port(toolbox_path, pem, quick, expect_error):
    tls = TlsFiles(pem / "server.key", pem / "server.pem")
    with EmbeddedServer(toolbox_path, "toolbox", port=0, tls=tls) as server:
        with _secure_channel(pem, server) as channel:
            PredictionServiceStub(channel).Predict(quick)
        plain = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        with plain as channel:
            stub = PredictionServiceStub(channel)
            code, _ = expect_error(stub.Predict, quick)
    assert code == "UNAVAILABLE"


def test_mutual_tls_demands_a_certificate(
    toolbox_path, pem, quick, expect_error
):
    tls = TlsFiles(pem / "server.key", pem / "server.pem", pem / "ca.pem")
    with EmbeddedServer(toolbox_path, "toolbox", port=0, tls=tls) as server:
        with _secure_channel(pem, server, with_certificate=True) as channel:
            PredictionServiceStub(channel).Predict(quick)
        with _secure_channel(pem, server) as channel:
            stub = PredictionServiceStub(channel)
            code, _ = expect_error(stub.Predict, quick)
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
