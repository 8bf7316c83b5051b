"""`bmt export`: a captioner as a SavedModel for TensorFlow Serving."""

import os
from pathlib import Path
from typing import Any

import typer

from bmt_keras.commands import options
from bmt_keras.commands.startup import load_tensorflow


@options.with_settings("decoding")
def export(
    captioner: options.Captioner = "runs/sample/captioner",
    out: Path = Path("models/bmt"),
    version: int | None = None,
    text_inputs: bool = True,
    metrics: Path | None = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Export a captioner, check the export, and publish it as a version.

    Captions are decoded as the captioner was saved, or by the options here.

    Options:
        out: Base folder of the model's versions.
        version: Number of the version; by default the next one.
        text_inputs: Export `fill_mask` and `score_caption`, too, which need
            tensorflow-text's ops in the server.
        metrics: Scores for the model card; by default metrics.json next to
            the captioner's folder, if it is there.
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
