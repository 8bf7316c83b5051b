"""`bmt bench`: how fast all of it is, as ratios of one run."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from bmt_keras.commands.settings_options import with_settings
from bmt_keras.errors import InputError

_PHOTOS = 400
_WIDTH = 150  # of the table in a file


@with_settings
def bench(
    rows: Annotated[
        str | None,
        typer.Option(help="Groups of rows, with commas; all by default."),
    ] = None,
    match: Annotated[
        str, typer.Option(help="Only the lines with this in their names.")
    ] = "",
    captions: Annotated[
        Path | None,
        typer.Option(help="Captions in COCO's format; made up by default."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of their photos.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Use so many photos.")
    ] = _PHOTOS,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds in which the cases take turns.")
    ] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Batches of a round.")] = 12,
    memory: Annotated[
        bool, typer.Option(help="Tell the most memory of each case, too.")
    ] = True,
    memory_photos: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Tell the memory of preparing so many photos; repeatable.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path(
        "benchmarks/results.json"
    ),
    *,
    overrides: dict[str, Any],
) -> None:
    """Measure speed and memory beside references in the same run."""
    from rich.console import Console

    from bmt_keras.atomic import write_atomically
    from bmt_keras.bench.options import GROUPS, OPTIONAL, BenchOptions
    from bmt_keras.bench.photos import write_photos
    from bmt_keras.bench.suite import run_suite
    from bmt_keras.bench.table import make_table

    groups = rows.split(",") if rows else list(GROUPS)
    for group in groups:
        if group not in (*GROUPS, *OPTIONAL):
            raise InputError(
                "`--rows` must name groups among "
                f"{', '.join((*GROUPS, *OPTIONAL))}. Received: {group}."
            )
    if (captions is None) != (images is None):
        raise InputError(
            "`--captions` and `--images` must be given together. Received: "
            f"--captions={captions}, --images={images}."
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    with tempfile.TemporaryDirectory() as name:
        if captions is None or images is None:
            write_photos(Path(name), count=limit)
            captions = Path(name) / "captions.json"
            images = Path(name) / "images"
        suite = run_suite(
            groups,
            BenchOptions(
                captions,
                images,
                rounds=rounds,
                steps=steps,
                limit=limit,
                match=match,
                memory_photos=tuple(memory_photos or ()),
                overrides=overrides,
            ),
            memory=memory,
            on_progress=lambda what: console.print(what, highlight=False),
        )
        for group, results in zip(groups, suite, strict=True):
            lines = [row for row in results["rows"] if row["group"] == group]
            console.print(make_table(group, lines))
            with write_atomically(out) as file:
                json.dump(results, file, indent=1)
            console.print(f"{out}: written", highlight=False)
