"""`bmt serve`: exported models over gRPC and REST."""

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from bmt_keras.commands.startup import load_tensorflow, require
from bmt_keras.contract import GRPC_PORT, MODEL_NAME

_SECONDS_BETWEEN_LOOKS = 0.5


def serve(
    models: Path = Path("models/bmt"),
    name: str = MODEL_NAME,
    model_config_file: Path | None = None,
    config_poll_seconds: Annotated[float, typer.Option(min=0)] = 0.0,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = GRPC_PORT,
    rest_port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    rest_cors: bool = False,
    poll_seconds: Annotated[float, typer.Option(min=0)] = 1.0,
    workers: Annotated[int, typer.Option(min=1)] = 16,
    max_calls: Annotated[int | None, typer.Option(min=1)] = None,
    max_message_mb: Annotated[int, typer.Option(min=0)] = 128,
    drain_seconds: Annotated[float, typer.Option(min=0)] = 30.0,
    tls_key: Path | None = None,
    tls_certificate: Path | None = None,
    tls_client_ca: Path | None = None,
) -> None:
    """Serve exported models over gRPC, and REST if asked.

    Options:
        models: Folder of the model's numbered versions.
        name: Name that requests give.
        model_config_file: TensorFlow Serving's models.config, in place of
            --models.
        config_poll_seconds: Time between looks into that file; 0: none.
        host: Address to listen at; 0.0.0.0 for every one.
        port: Port; 0 picks a free one.
        rest_port: Port of REST and metrics; none by default.
        rest_cors: Let scripts of any web page call REST.
        poll_seconds: Time between looks for versions; 0: none.
        workers: Predictions that run at a time.
        max_calls: Predictions running or waiting; more are refused.
        max_message_mb: Larger requests are refused; 0: no limit.
        drain_seconds: Time for calls in flight after SIGTERM.
        tls_key: The server's private key, PEM.
        tls_certificate: The server's certificate, PEM.
        tls_client_ca: Authority of clients, PEM: demands certificates.
    """
    require("prometheus_client", "grpc_health", "grpc_reflection")
    if rest_port is not None:
        require("aiohttp")
    # Imported late: TensorFlow takes seconds, and --help needs none of it.
    load_tensorflow()
    from bmt_keras.serving.server import EmbeddedServer, TlsFiles

    tls = None
    if tls_key is not None and tls_certificate is not None:
        tls = TlsFiles(tls_key, tls_certificate, tls_client_ca)
    server = EmbeddedServer(
        model_config_file or models,
        name,
        host=host,
        port=port,
        rest_port=rest_port,
        rest_cors=rest_cors,
        max_workers=workers,
        max_concurrent_calls=max_calls,
        max_message_bytes=(max_message_mb << 20) or -1,
        poll_seconds=poll_seconds,
        config_poll_seconds=config_poll_seconds,
        tls=tls,
    )
    _run(server, drain_seconds)


def _run(server: Any, drain_seconds: float) -> None:
    server.start()
    # A handler that raises, as Python's own for Ctrl-C does, can be lost: what
    # it raises within a finalizer or a callback is only reported.
    received: list[int] = []
    earlier = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        address = f"{server.host}:{server.port}"
        if not server.versions:
            typer.echo(f"Serving no model at {address}")
        for name, versions in server.versions.items():
            numbers = ", ".join(map(str, versions))
            typer.echo(f"Serving {name} version {numbers} at {address}")
        if server.rest_port is not None:
            typer.echo(f"REST at {server.host}:{server.rest_port}")
        while not received:
            server.wait(_SECONDS_BETWEEN_LOOKS)
    finally:
        # A second signal does not wait for the calls in flight.
        for number, handler in earlier.items():
            signal.signal(number, handler)
        server.stop(drain_seconds)
