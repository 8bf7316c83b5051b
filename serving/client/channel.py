"""The connection: TLS, message sizes, retries, keep-alive and balancing."""

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

from ..errors import ServingError

Options = list[tuple[str, int | str]]

# gRPC makes no more, whatever a policy asks for.
MAX_ATTEMPTS = 5
_MAX_BACKOFF_S = 10.0
_MAX_PING_TIMEOUT_S = 20.0
_PREDICTION_SERVICE = "tensorflow.serving.PredictionService"


@dataclass(frozen=True)
class Tls:
    """An encrypted connection; without files, one that trusts public roots.

    Args:
        ca: Path of the certificates (PEM) that the server's must come from.
            None trusts the roots that gRPC ships.
        certificate: Path of the client's own certificate chain (PEM), for
            mutual TLS.
        key: Path of that certificate's private key (PEM).
        server_name: str. The name in the server's certificate, where it is
            not the host of the address.

    Raises:
        ServingError: If one of `certificate` and `key` comes alone.

    Example:
        ```python
        tls = Tls(ca="ca.pem", certificate="client.pem", key="client.key")
        client = CaptionClient("captions.example:8500", tls=tls)
        ```
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
        """Reads the files.

        Raises:
            ServingError: If a file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_read_pem(self.ca),
            private_key=_read_pem(self.key),
            certificate_chain=_read_pem(self.certificate),
        )


def make_options(
    *,
    max_message_bytes: int,
    max_attempts: int,
    backoff_s: float,
    keepalive_s: float | None,
    tls: Tls | None,
) -> Options:
    """Returns gRPC's options of a channel; arguments as `CaptionClient`'s.

    gRPC itself repeats a call that ends UNAVAILABLE, within its deadline, with
    exponential back-off and jitter, and no other. Calls take turns among the
    addresses that a name stands for.
    """
    max_backoff_s = max(backoff_s, _MAX_BACKOFF_S)
    method: dict[str, object] = {"name": [{"service": _PREDICTION_SERVICE}]}
    if max_attempts > 1:  # gRPC refuses a policy of one attempt
        method["retryPolicy"] = {
            "maxAttempts": max_attempts,
            "initialBackoff": f"{backoff_s:.9f}s",
            "maxBackoff": f"{max_backoff_s:.9f}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [method],
    }
    options: Options = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.service_config", json.dumps(config)),
        # A request over this is not sent again; the default is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        # By default a lost connection is tried again after the retries end.
        ("grpc.initial_reconnect_backoff_ms", _to_ms(backoff_s)),
        ("grpc.max_reconnect_backoff_ms", _to_ms(max_backoff_s)),
    ]
    if keepalive_s is not None:
        timeout_s = min(keepalive_s, _MAX_PING_TIMEOUT_S)
        options += [
            ("grpc.keepalive_time_ms", _to_ms(keepalive_s)),
            ("grpc.keepalive_timeout_ms", _to_ms(timeout_s)),
            # This one, 60 s by default, ends the connection.
            ("grpc.http2.ping_timeout_ms", _to_ms(timeout_s)),
        ]
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _to_ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _read_pem(path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ServingError(
            f"{path}: expected a certificate or key that can be read, found "
            f"{error.strerror}."
        ) from error
