"""`bmt request`: captions from a running server."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from bmt_keras.commands import options
from bmt_keras.commands.startup import load_tensorflow
from bmt_keras.contract import GRPC_PORT, MODEL_NAME
from bmt_keras.data.caption_files import Journal, check_out
from bmt_keras.image_files import find_images, show_name
from bmt_keras.progress import show_progress


def request(
    images: Annotated[list[Path], typer.Argument()],
    out: options.Out = None,
    server: str = f"127.0.0.1:{GRPC_PORT}",
    name: str = MODEL_NAME,
    version: Annotated[int | None, typer.Option(min=0)] = None,
    label: str | None = None,
    length: Annotated[int | None, typer.Option(min=0)] = None,
    timeout: Annotated[float, typer.Option(min=0.001)] = 60.0,
    attempts: Annotated[int, typer.Option(min=1)] = 20,
    backoff: Annotated[float, typer.Option(min=0.001)] = 0.2,
    wait: Annotated[float, typer.Option(min=0)] = 0.0,
    concurrency: Annotated[int, typer.Option(min=1)] = 4,
    images_per_request: Annotated[int, typer.Option(min=1)] = 8,
    max_message_mb: Annotated[int, typer.Option(min=1)] = 256,
    tls: bool = False,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    server_name: str | None = None,
    progress: bool = False,
) -> None:
    """Ask a running server for the captions of photos.

    Options:
        images: Photo files, or folders of them.
        server: Address of the server, host:port.
        name: Name under which the model is served.
        version: Version that answers; else the latest.
        label: Label of the version that answers.
        length: Tokens of a caption, 0 for any number.
        timeout: Seconds a request may take, retries included.
        attempts: Tries of a server that is away or full.
        backoff: Seconds before the second, then doubled, up to 5.
        wait: Seconds to wait for a starting server.
        concurrency: Requests in flight at a time.
        images_per_request: Photos sent together at most.
        max_message_mb: Largest request and answer in MiB.
        tls: Encrypt; trust public authorities.
        ca: Encrypt; trust the authorities of this PEM file.
        certificate: Own certificate (PEM), for mutual TLS.
        key: Its private key (PEM).
        server_name: Name in the server's certificate, if another.
        progress: Show progress on stderr.
    """
    found = find_images(images)
    if len(found) == 1 and not found[0].exists():
        # Among others it is one of the answers.
        line = f"{found[0]}: expected a file that can be read, found none."
        typer.echo(line, err=True)
        raise typer.Exit(1)
    left = found
    journal: Journal | None = None
    if out is not None:
        check_out(out, found)
        source = {"server": server, "name": name, "length": length}
        journal = Journal(out, source | {"version": version, "label": label})
        # What has an error is asked again.
        done = {x["file"] for x in journal.rows.values() if not x["error"]}
        left = [path for path in found if str(path) not in done]
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
        max_attempts=attempts,
        backoff_s=backoff,
        tls=Tls(ca, certificate, key, server_name) if encrypted else None,
    ) as client:
        if wait:
            client.wait_until_reachable(wait)
        stream = client.stream(
            left,
            length=length,
            concurrency=concurrency,
            images_per_request=images_per_request,
        )
        with bar as show:
            start = len(found) - len(left) + 1
            for count, (image, result) in enumerate(stream, start):
                if show is not None:
                    show("", count, len(found))
                if journal is not None:
                    journal.append([{"file": str(image), **vars(result)}])
                if result.error:
                    failed = True
                    typer.echo(name_error(image, result.error), err=True)
                elif found == images[:1] and journal is None:
                    typer.echo(result.caption)
                elif journal is None:
                    typer.echo(f"{show_name(image)}\t{result.caption}")
    if out is not None and journal is not None:
        rows = journal.finish(out, found)
        typer.echo(f"{out}: {sum(not x['error'] for x in rows)} captions")
    if failed:
        raise typer.Exit(1)
