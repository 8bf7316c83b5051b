"""The connection: TLS, message sizes, reconnection, keep-alive, balancing."""

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

from ..errors import ServingError

MAX_BACKOFF_S = 5.0
# What TLS fails by: gRPC's words, and ours; encrypted and not.
_TLS_FAULTS = {
    True: {
        "WRONG_VERSION_NUMBER": "speaks no TLS: ask it without",
        "CERTIFICATE_VERIFY_FAILED": "has a certificate that cannot be "
        "verified: give that of its authority as `ca`",
        "Hostname Verification": "has a certificate of another name: give "
        "that as `server_name`",
        "security handshaker": "cannot be asked with these PEM files: give "
        "a `ca`, and a `certificate` with its `key`",
        "Socket closed": "hangs up: it may want a `certificate` that it trusts",
    },
    False: {"Socket closed": "hangs up: it may want TLS, such as a `ca`"},
}
_MAX_PING_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Tls:
    """An encrypted connection; without files, one that trusts public roots.

    Args:
        ca: Certificates (PEM) that the server's must come from; None trusts
            the roots that gRPC ships.
        certificate: The client's own certificate chain (PEM), for mutual TLS.
        key: That certificate's private key (PEM).
        server_name: The name in the server's certificate, where it is not the
            host of the address.

    Raises:
        ServingError: If one of `certificate` and `key` comes alone.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Checks that the files belong together."""
        if (self.certificate is None) != (self.key is None):
            raise ServingError(
                "`certificate` and `key` must be given together. Received: "
                f"certificate={self.certificate}, key={self.key}."
            )

    def read_credentials(self) -> grpc.ChannelCredentials:
        """Reads the files; raises ServingError for one that it cannot."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read_pem(self.ca),
            private_key=_read_pem(self.key),
            certificate_chain=_read_pem(self.certificate),
        )


def make_options(
    *,
    max_message_bytes: int,
    backoff_s: float,
    keepalive_s: float | None,
    tls: Tls | None,
) -> list[tuple[str, int | str]]:
    """Returns gRPC's options of a channel; arguments as `CaptionClient`'s."""
    # Calls take turns among the addresses that a name stands for.
    service = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
    max_backoff_s = max(backoff_s, MAX_BACKOFF_S)
    options: list[tuple[str, int | str]] = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.service_config", service),
        # By default a lost connection is tried again after up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", _to_ms(backoff_s)),
        ("grpc.max_reconnect_backoff_ms", _to_ms(max_backoff_s)),
    ]
    if keepalive_s is not None:
        timeout_ms = _to_ms(min(keepalive_s, _MAX_PING_TIMEOUT_S))
        options += [
            ("grpc.keepalive_time_ms", _to_ms(keepalive_s)),
            ("grpc.keepalive_timeout_ms", timeout_ms),
            # This one, 60 s by default, ends the connection.
            ("grpc.http2.ping_timeout_ms", timeout_ms),
        ]
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def find_tls_fault(details: str, is_encrypted: bool) -> str:
    """Says by what of TLS a connection failed; "" if by nothing of it."""
    faults = _TLS_FAULTS[is_encrypted].items()
    return next((fault for words, fault in faults if words in details), "")


def _to_ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _read_pem(path: str | Path | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise ServingError(
            f"{path}: expected a certificate or key that can be read, found "
            f"{error.strerror}."
        ) from error
