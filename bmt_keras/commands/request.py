"""`bmt request`: captions from a running server."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from bmt_keras.commands.startup import load_tensorflow
from bmt_keras.contract import GRPC_PORT, MODEL_NAME
from bmt_keras.image_files import find_images
from bmt_keras.progress import show_progress


def request(
    images: Annotated[
        list[Path], typer.Argument(help="Photo files, or folders of them.")
    ],
    server: Annotated[
        str, typer.Option(help="Address of the server, host:port.")
    ] = f"127.0.0.1:{GRPC_PORT}",
    name: Annotated[
        str, typer.Option(help="Name under which the model is served.")
    ] = MODEL_NAME,
    version: Annotated[
        int | None,
        typer.Option(min=0, help="Version that answers; else the latest."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Label of the version that answers.")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens of a caption, 0 for any number."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001, help="Seconds a request may take, retries included."
        ),
    ] = 30.0,
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for a starting server."),
    ] = 0.0,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Requests in flight at a time.")
    ] = 4,
    images_per_request: Annotated[
        int, typer.Option(min=1, help="Photos sent together at most.")
    ] = 8,
    max_message_mb: Annotated[
        int, typer.Option(min=1, help="Largest request and answer in MiB.")
    ] = 256,
    tls: Annotated[
        bool, typer.Option("--tls", help="Encrypt; trust public authorities.")
    ] = False,
    ca: Annotated[
        Path | None,
        typer.Option(help="Encrypt; trust the authorities of this PEM file."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Own certificate (PEM), for mutual TLS.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Its private key (PEM).")
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option(help="Name in the server's certificate, if another."),
    ] = None,
    progress: Annotated[
        bool, typer.Option("--progress", help="Show progress on stderr.")
    ] = False,
) -> None:
    """Ask a running server for the captions of photos."""
    if version is not None and label is not None:
        raise typer.BadParameter("--version and --label exclude each other.")
    found = find_images(images)
    if len(found) == 1 and not found[0].exists():
        # Among others it is one of the answers.
        line = f"{found[0]}: expected a file that can be read, found none."
        typer.echo(line, err=True)
        raise typer.Exit(1)
    # Imported late: TensorFlow takes seconds, and --help needs none of it.
    load_tensorflow(devices=False)
    from bmt_keras.serving.client import CaptionClient, Tls
    from bmt_keras.serving.client.requests import name_error

    encrypted = tls or any((ca, certificate, key, server_name))
    failed = False
    bar = show_progress("Captioning images") if progress else nullcontext()
    with CaptionClient(
        server,
        model_name=name,
        version=version,
        label=label,
        timeout_s=timeout,
        max_message_mb=max_message_mb,
        tls=Tls(ca, certificate, key, server_name) if encrypted else None,
    ) as client:
        if wait:
            client.wait_until_reachable(wait)
        stream = client.stream(
            found,
            length=length,
            concurrency=concurrency,
            images_per_request=images_per_request,
        )
        with bar as show:
            for done, (image, result) in enumerate(stream, start=1):
                if show is not None:
                    show("", done, len(found))
                if result.error:
                    failed = True
                    typer.echo(name_error(image, result.error), err=True)
                elif found == images[:1]:
                    typer.echo(result.caption)
                else:
                    typer.echo(f"{image}\t{result.caption}")
    if failed:
        raise typer.Exit(1)
