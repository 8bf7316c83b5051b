"""`bmt export`: a captioner as a SavedModel for TensorFlow Serving."""

from pathlib import Path
from typing import Annotated

import typer

from bmt_keras.commands.quiet import load_tensorflow


def export(
    captioner: Annotated[
        Path, typer.Option(help="The captioner's folder.")
    ] = Path("runs/sample/captioner"),
    out: Annotated[
        Path, typer.Option(help="Base folder of the model's versions.")
    ] = Path("models/bmt"),
    version: Annotated[
        int | None,
        typer.Option(help="Number of the version; by default the next one."),
    ] = None,
) -> None:
    """Export a captioner, check the export, and publish it as a version."""
    load_tensorflow()
    from bmt_keras.captioner import Captioner
    from bmt_keras.export import export_captioner

    folder = export_captioner(Captioner.load(captioner), out, version=version)
    typer.echo(f"{folder}: exported")
