"""Versioned SavedModels, written whole or not at all."""

from pathlib import Path

import tensorflow as tf

from bmt_keras import contract
from bmt_keras.atomic import write_folder_atomically
from bmt_keras.captioner import Captioner
from bmt_keras.errors import InputError

from .check import check_signatures
from .signatures import CaptionerSignatures
from .warmup import write_warmup_requests


def export_captioner(
    captioner: Captioner,
    base: str | Path,
    *,
    version: int | None = None,
) -> Path:
    """Writes a captioner as the next version of a served model.

    The version's folder is written under a hidden name beside its place,
    loaded by a TF1 session (the road that TensorFlow Serving takes), compared
    with the captioner, and only then renamed: a server that watches the base
    folder never sees half a model.

    Args:
        captioner: What to export.
        base: The model's base folder, such as `models/bmt`.
        version: Number of the version; by default one more than the highest
            there.

    Returns:
        The version's folder.

    Raises:
        InputError: The version exists already.
    """
    base = Path(base)
    if version is None:
        version = max(_versions(base), default=0) + 1
    if version < 1:
        raise InputError(
            f"`version` must be at least 1. Received: version={version}."
        )
    if version in _versions(base):
        raise InputError(
            f"{base / str(version)}: the version exists already; give another "
            "--version, or none for the next one."
        )
    signatures = CaptionerSignatures(captioner.graph)
    with write_folder_atomically(base / str(version)) as partial:
        functions = signatures.trace()
        tf.saved_model.save(
            signatures.weights(), str(partial), signatures=functions
        )
        write_warmup_requests(partial, captioner, contract.MODEL_NAME)
        check_signatures(partial, functions, captioner)
    return base / str(version)


def _versions(base: Path) -> list[int]:
    if not base.is_dir():
        return []
    names = (path.name for path in base.iterdir() if path.is_dir())
    return [int(name) for name in names if name.isdecimal()]
