"""TLS of the gRPC port, with or without certificates of the clients."""

import grpc
import pytest
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceStub,
)

from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer, TlsFiles


def _secure_channel(pem, server, *, with_certificate=False):
    key, certificate = (
        (pem / f"client.{end}").read_bytes() if with_certificate else None
        for end in ("key", "pem")
    )
    credentials = grpc.ssl_channel_credentials(
        (pem / "ca.pem").read_bytes(), key, certificate
    )
    name = [("grpc.ssl_target_name_override", "captions.test")]
    return grpc.secure_channel(f"127.0.0.1:{server.port}", credentials, name)


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_encrypts_the_port(
    serve_toolbox, certificates, quick, expect_error, mutual
):
    pem = certificates
    client_ca = pem / "ca.pem" if mutual else None
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
    toolbox_path, certificates, key, certificate, client_ca
):
    pem = certificates
    (pem / "names").write_text("no certificate")
    tls = TlsFiles(pem / key, pem / certificate, client_ca and pem / client_ca)
    server = EmbeddedServer(toolbox_path, "toolbox", port=0, tls=tls)
    with pytest.raises(ServingError, match=r"TLS needs .* Cannot use"):
        server.start()
