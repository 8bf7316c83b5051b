"""`bmt sample`: generated pictures with captions, in COCO's layout."""

from pathlib import Path
from typing import Annotated

import typer


def sample(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path(
        "data/sample"
    ),
    train: Annotated[
        int, typer.Option(min=1, help="Number of training pictures.")
    ] = 5000,
    val: Annotated[
        int, typer.Option(min=1, help="Number of validation pictures.")
    ] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 0,
) -> None:
    """Write the offline sample: pictures of shapes, captions and facts."""
    from bmt_keras.sample import write_sample

    write_sample(out, num_train=train, num_val=val, seed=seed)
    typer.echo(f"{out}: {train} training and {val} validation pictures")
