"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Captions = Annotated[Path, typer.Option(help="Captions (COCO's JSON).")]
Images = Annotated[Path, typer.Option(help="Folder of the images.")]
ValCaptions = Annotated[
    Path | None, typer.Option(help="Captions of the validation images.")
]
ValImages = Annotated[
    Path | None, typer.Option(help="Folder of the validation images.")
]
ValShare = Annotated[
    float, typer.Option(help="Share held out without --val-captions.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="The first N images of each file.")
]
MbrSamples = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Sample N captions per image and keep the one that all resemble "
        "most; by default as the captioner was saved.",
    ),
]
RerankTop = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Score the best N captions of each image once more before one is "
        "chosen; by default as the captioner was saved.",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out unreadable images.")
]
Preset = Annotated[
    str,
    typer.Option(is_eager=True, help="sample, small, notebook or coco."),
]
