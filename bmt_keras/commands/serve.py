"""`bmt serve`: the exported model over gRPC."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.contract import GRPC_PORT, MODEL_NAME

_GRACE_SECONDS = 5.0
_SECONDS_BETWEEN_LOOKS = 0.5


def serve(
    models: Annotated[
        Path, typer.Option(help="Folder of the model's numbered versions.")
    ] = Path("models/bmt"),
    name: Annotated[
        str, typer.Option(help="Name that requests give.")
    ] = MODEL_NAME,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for every one.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")
    ] = GRPC_PORT,
) -> None:
    """Serve the latest version of an exported model over gRPC."""
    # Imported late: TensorFlow takes seconds, and --help needs none of it.
    load_tensorflow()
    from bmt_keras.serving.server import EmbeddedServer

    server = EmbeddedServer(models, name, host=host, port=port)
    server.start()
    try:
        with _listen_to_signals() as received:
            typer.echo(
                f"Serving {name} version {server.version} at "
                f"{host}:{server.port}"
            )
            while not received:
                server.wait(_SECONDS_BETWEEN_LOOKS)
    finally:
        server.stop(_GRACE_SECONDS)


@contextmanager
def _listen_to_signals() -> Iterator[list[int]]:
    """Gives the list in which signals to stop turn up.

    A handler that raises, as Python's own for Ctrl-C does, can be lost: what
    it raises within a finalizer or a callback is only reported.
    """
    received: list[int] = []
    earlier = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
