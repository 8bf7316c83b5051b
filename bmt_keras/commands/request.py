"""`bmt request`: captions from a running server."""

from pathlib import Path
from typing import Annotated

import typer

from bmt_keras.commands.quiet import load_tensorflow
from bmt_keras.contract import GRPC_PORT, MODEL_NAME

# One request for everything would grow past what a message may hold.
_PHOTOS_A_REQUEST = 16


def request(
    images: Annotated[
        list[Path],
        typer.Argument(help="Photo files."),
    ],
    server: Annotated[
        str, typer.Option(help="Address of the server, host:port.")
    ] = f"127.0.0.1:{GRPC_PORT}",
    name: Annotated[
        str, typer.Option(help="Name under which the model is served.")
    ] = MODEL_NAME,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds a request may take.")
    ] = 30.0,
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for a starting server."),
    ] = 0.0,
) -> None:
    """Ask a running server for the captions of photos."""
    # Imported late: TensorFlow takes seconds, and --help needs none of it.
    load_tensorflow()
    from bmt_keras.serving.client import CaptionClient

    failed = False
    with CaptionClient(server, model_name=name, timeout_s=timeout) as client:
        if wait:
            client.wait_until_reachable(wait)
        for start in range(0, len(images), _PHOTOS_A_REQUEST):
            batch = images[start : start + _PHOTOS_A_REQUEST]
            results = client.caption(batch)
            for path, result in zip(batch, results, strict=True):
                if result.error:
                    failed = True
                    typer.echo(f"{path}: {result.error}", err=True)
                elif len(images) == 1:
                    typer.echo(result.caption)
                else:
                    typer.echo(f"{path}\t{result.caption}")
    if failed:
        raise typer.Exit(1)
