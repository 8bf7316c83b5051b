"""TLS for the gRPC port, from PEM files."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from ..errors import ServingError


@dataclass(frozen=True)
class TlsFiles:
    """PEM files by which a server proves who it is.

    Args:
        key: Path of the server's private key.
        certificate: Path of the server's certificate, with its chain.
        client_ca: Path of the authority that signs clients' certificates.
            With it, a client without one is refused (mutual TLS).
    """

    key: Path
    certificate: Path
    client_ca: Path | None = None


def make_server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Reads PEM files into credentials for a port.

    Args:
        files: TlsFiles.

    Returns:
        grpc.ServerCredentials.

    Raises:
        ServingError: If a file cannot be read, holds no PEM, or key and
            certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # gRPC would tell of bad files only in its log.
        context.load_cert_chain(files.certificate, files.key)
        client_ca = None
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            client_ca = files.client_ca.read_bytes()
        return grpc.ssl_server_credentials(
            [(files.key.read_bytes(), files.certificate.read_bytes())],
            root_certificates=client_ca,
            require_client_auth=client_ca is not None,
        )
    except OSError as error:
        raise ServingError(
            "TLS needs a key and its certificate as PEM files, and for mutual "
            "TLS the clients' authority as one. Cannot use "
            f"{files.key}, {files.certificate}"
            f"{'' if files.client_ca is None else f', {files.client_ca}'}: "
            f"{error}."
        ) from error
