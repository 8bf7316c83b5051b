"""`bmt sample`: generated pictures with captions, in COCO's layout."""

from pathlib import Path
from typing import Annotated

import typer


def sample(
    out: Path = Path("data/sample"),
    train: Annotated[int, typer.Option(min=1)] = 5000,
    val: Annotated[int, typer.Option(min=1)] = 300,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write the offline sample: pictures of shapes, captions and facts.

    Options:
        out: Folder to write.
        train: Number of training pictures.
        val: Number of validation pictures.
        seed: Seed.
    """
    from bmt_keras.sample import write_sample

    write_sample(out, num_train=train, num_val=val, seed=seed)
    typer.echo(f"{out}: {train} training and {val} validation pictures")
