"""`bmt export`: a captioner as a SavedModel for TensorFlow Serving."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from bmt_keras.commands import options
from bmt_keras.commands.startup import load_tensorflow


@options.with_settings("decoding")
def export(
    captioner: options.Captioner = "runs/sample/captioner",
    out: Annotated[
        Path, typer.Option(help="Base folder of the model's versions.")
    ] = Path("models/bmt"),
    version: Annotated[
        int | None,
        typer.Option(help="Number of the version; by default the next one."),
    ] = None,
    text_inputs: Annotated[
        bool,
        typer.Option(
            help="Export `fill_mask` and `score_caption`, too, which need "
            "tensorflow-text's ops in the server."
        ),
    ] = True,
    metrics: Annotated[
        Path | None,
        typer.Option(
            help="Scores for the model card; by default metrics.json next to "
            "the captioner's folder, if it is there."
        ),
    ] = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Export a captioner, check the export, and publish it as a version.

    Captions are decoded as the captioner was saved, or by the options here.
    """
    # The export and the process that checks it compute on the same device.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    load_tensorflow()
    from bmt_keras.captioner import Captioner
    from bmt_keras.export import export_captioner
    from bmt_keras.export.description import read_metrics

    path = metrics or Path(captioner).resolve().parent / "metrics.json"
    folder = export_captioner(
        Captioner.from_preset(captioner, **overrides),
        out,
        version=version,
        text_inputs=text_inputs,
        metrics=read_metrics(path) if metrics or path.is_file() else None,
    )
    typer.echo(f"{folder}: exported")
