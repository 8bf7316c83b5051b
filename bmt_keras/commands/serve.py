"""`bmt serve`: the exported model over gRPC."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.contract import GRPC_PORT, MODEL_NAME

_GRACE_SECONDS = 5.0


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
    # A terminated server ends as an interrupted one does.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.start()
        typer.echo(
            f"Serving {name} version {server.version} at {host}:{server.port}"
        )
        with suppress(KeyboardInterrupt):
            server.wait()
    finally:
        server.stop(_GRACE_SECONDS)
        signal.signal(signal.SIGTERM, previous)
