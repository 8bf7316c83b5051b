"""Versioned SavedModels, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from bmt_keras.atomic import write_folder_atomically
from bmt_keras.captioner import Captioner
from bmt_keras.errors import InputError

from .check import check_signatures
from .description import write_manifest, write_model_card
from .signatures import CaptionerSignatures
from .warmup import make_example_inputs, write_warmup_requests


def export_captioner(
    captioner: Captioner,
    base: str | Path,
    *,
    version: int | None = None,
    text_inputs: bool = True,
    metrics: Mapping[str, float] | None = None,
) -> Path:
    """Writes a captioner as the next version of a served model.

    The version's folder is written under a hidden name, run by a TF1 session
    in a fresh process (the road that TensorFlow Serving takes), compared with
    the captioner, and only then renamed: a server that watches the base folder
    never sees half a model. It holds the SavedModel, requests that warm a
    server up, a model card (`README.md`) and `bmt.json`.

    Args:
        captioner: What to export.
        base: The model's base folder, such as `models/bmt`.
        version: Its number; by default one more than the highest there.
        text_inputs: Whether to export signatures that take texts, too; they
            need tensorflow_text's ops, which TensorFlow Serving has.
        metrics: Figures for the model card, by name.

    Returns:
        The version's folder.

    Raises:
        InputError: The version exists already.
        OSError: The folder cannot be written, as on a full disk.
        RuntimeError: What was written differs from the captioner.
    """
    base = Path(base)
    found = base.iterdir() if base.is_dir() else ()
    versions = {int(p.name) for p in found if p.is_dir() and p.name.isdecimal()}
    if version is None:
        version = max(versions, default=0) + 1
    if version < 1:
        raise InputError(
            f"`version` must be at least 1. Received: version={version}."
        )
    folder = base / str(version)
    if version in versions:
        raise InputError(
            f"{folder}: the version exists already; give another --version, or "
            "none for the next one."
        )
    # Before anything is written: what cannot be traced leaves no folder.
    signatures = CaptionerSignatures(captioner.graph)
    functions = signatures.trace(text_inputs=text_inputs)
    inputs = make_example_inputs(captioner, functions)
    with write_folder_atomically(folder) as partial:
        try:
            tf.saved_model.save(
                signatures.weights(), str(partial), signatures=functions
            )
            write_warmup_requests(partial, inputs)
            write_manifest(partial, captioner, version, functions)
            write_model_card(partial, captioner, functions, metrics)
        except (OSError, tf.errors.OpError) as error:
            raise OSError(
                f"{folder}: the model cannot be written, nothing was "
                f"published: {error}"
            ) from error
        # An error in here removes the folder.
        check_signatures(partial, functions, inputs)
    return folder
