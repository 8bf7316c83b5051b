"""Photos that a command is given: the options and the reading."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bmt_keras.data.captions import (
    CaptionedImage,
    read_coco_captions,
    split_images,
)
from bmt_keras.errors import InputError

Captions = Annotated[
    Path, typer.Option(help="Captions in COCO's format (JSON).")
]
Images = Annotated[Path, typer.Option(help="Folder of the photos.")]
ValCaptions = Annotated[
    Path | None, typer.Option(help="Captions of the validation photos.")
]
ValImages = Annotated[
    Path | None, typer.Option(help="Folder of the validation photos.")
]
ValShare = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Share of the photos held out, where no --val-captions are given.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Use only the first N photos of each file."),
]
MbrSamples = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Draw so many captions of each photo and keep the one that all "
        "resemble most; by default as many as the captioner was saved with.",
    ),
]
RerankTop = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Read the best so many captions of each photo once more before "
        "one is chosen; by default as the captioner was saved.",
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave out photos that cannot be read."),
]


def read_both_sides(
    captions: Path,
    images: Path,
    *,
    val_captions: Path | None,
    val_images: Path | None,
    val_share: float,
    limit: int | None,
    seed: int,
) -> tuple[Sequence[CaptionedImage], Sequence[CaptionedImage]]:
    """Reads training and validation photos, or splits one file by photo.

    Returns:
        Training and validation photos.

    Raises:
        InputError: The files are bad, or only half of the validation options
            is given.
    """
    photos = read_coco_captions(captions, images, limit=limit)
    if val_captions is None and val_images is None:
        return split_images(photos, val_share, seed=seed)
    if val_captions is None or val_images is None:
        raise InputError(
            "`--val-captions` and `--val-images` must be given together. "
            f"Received: --val-captions={val_captions}, "
            f"--val-images={val_images}."
        )
    return photos, read_coco_captions(val_captions, val_images, limit=limit)
