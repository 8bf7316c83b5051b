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
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out unreadable images.")
]
Preset = Annotated[
    str,
    typer.Option(is_eager=True, help="sample, small, notebook or coco."),
]
