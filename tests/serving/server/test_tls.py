"""TLS of the gRPC port, with or without certificates of the clients."""

import subprocess

import grpc
import pytest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer, TlsFiles


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A server and a client, each its own authority."""
    folder = tmp_path_factory.mktemp("pem")
    (folder / "names").write_text("no certificate")
    for who in ("server", "client"):
        command = ["openssl", "req", "-x509", "-nodes", "-days", "2"]
        command += ["-newkey", "rsa:2048", "-subj", f"/CN={who}"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", f"{who}.key", "-out", f"{who}.pem"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def _secure_channel(pem, server, *, with_certificate=False):
    key, certificate = (
        (pem / f"client.{end}").read_bytes() if with_certificate else None
        for end in ("key", "pem")
    )
    credentials = grpc.ssl_channel_credentials(
        (pem / "server.pem").read_bytes(), key, certificate
    )
    return grpc.secure_channel(f"127.0.0.1:{server.port}", credentials)


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_encrypts_the_port(serve_toolbox, pem, quick, expect_error, mutual):
    client_ca = pem / "client.pem" if mutual else None
    tls = TlsFiles(pem / "server.key", pem / "server.pem", client_ca)
    with serve_toolbox(tls=tls) as (server, plain, _):
        with _secure_channel(pem, server, with_certificate=mutual) as channel:
            PredictionServiceStub(channel).Predict(quick)
        code, _ = expect_error(plain.Predict, quick)
        assert code == "UNAVAILABLE"
        if mutual:
            # It demands a certificate of the client.
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
def test_bad_tls_files_are_reported(
    toolbox_path, pem, key, certificate, client_ca
):
    tls = TlsFiles(pem / key, pem / certificate, client_ca and pem / client_ca)
    server = EmbeddedServer(toolbox_path, "toolbox", port=0, tls=tls)
    with pytest.raises(ServingError, match=r"TLS needs .* Cannot use"):
        server.start()
