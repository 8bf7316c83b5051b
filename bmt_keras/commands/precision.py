"""The precision of a run's products of matrices."""

import typer


def choose_matmul_precision(name: str, *, tell: bool = True) -> None:
    """Sets the precision, and tells what `auto` found: results depend on it.

    Args:
        name: 'float32', 'bfloat16' or 'auto'.
        tell: Whether this process speaks for the run.
    """
    from bmt_keras.models import set_matmul_precision

    found = set_matmul_precision(name)
    if name == "auto" and tell:
        typer.echo(f"Products of matrices in {found} (found by a trial)")
