"""The connection: TLS, message sizes, retries, keep-alive and balancing."""

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

from ..errors import ServingError

Options = list[tuple[str, int | str]]

# gRPC itself makes no more, whatever it is told.
MOST_ATTEMPTS = 5
_LONGEST_BACKOFF_SECONDS = 10.0
_LONGEST_PING_TIMEOUT_SECONDS = 20.0
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
    """Returns gRPC's options of a channel.

    A call that ends UNAVAILABLE is made again by gRPC itself, within its
    deadline, with exponential back-off and jitter; no other code is tried
    again. Calls take turns among the addresses that a name stands for.

    Args:
        max_message_bytes: int. Largest request and answer.
        max_attempts: int. Calls made in all, the first one included.
        backoff_s: float. Wait before the second attempt; each further one is
            twice as long.
        keepalive_s: float. Seconds of silence after which a call in flight
            makes the connection prove that it is alive; None never asks.
        tls: Tls or None.
    """
    longest_s = max(backoff_s, _LONGEST_BACKOFF_SECONDS)
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            _make_method_config(max_attempts, backoff_s, longest_s)
        ],
    }
    options: Options = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.service_config", json.dumps(config)),
        # A request over this is not sent again; the default is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        # Else a lost connection is not sought again before the retries end.
        ("grpc.initial_reconnect_backoff_ms", _to_ms(backoff_s)),
        ("grpc.max_reconnect_backoff_ms", _to_ms(longest_s)),
    ]
    if keepalive_s is not None:
        timeout_s = min(keepalive_s, _LONGEST_PING_TIMEOUT_SECONDS)
        options += [
            ("grpc.keepalive_time_ms", _to_ms(keepalive_s)),
            ("grpc.keepalive_timeout_ms", _to_ms(timeout_s)),
            # It is this one, 60 s by default, that ends the connection.
            ("grpc.http2.ping_timeout_ms", _to_ms(timeout_s)),
        ]
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _make_method_config(
    max_attempts: int, backoff_s: float, longest_s: float
) -> dict[str, object]:
    method: dict[str, object] = {"name": [{"service": _PREDICTION_SERVICE}]}
    if max_attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": max_attempts,
            "initialBackoff": f"{backoff_s:.9f}s",
            "maxBackoff": f"{longest_s:.9f}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    return method


def _to_ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _read_pem(path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ServingError(
            "A certificate or key must be a file that can be read. Received: "
            f"{path}: {error.strerror}."
        ) from error
