"""`bmt pretrain`: the text side learns from captions without images."""

from pathlib import Path
from typing import Any

import typer

from bmt_keras.commands import options, startup


@options.with_settings()
def pretrain(
    text: Path,
    out: Path,
    preset: options.Preset = "small",
    captions: Path | None = None,
    split: options.Split = None,
    skip_bad: options.SkipBad = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Pretrain on text alone; `bmt train --start OUT/captioner` follows.

    Options:
        text: Captions, one per line; .txt or .txt.gz.
        out: Folder of the run.
        captions: Learn from these, too (any layout).
    """
    startup.load_tensorflow()
    from bmt_keras.training.pretraining import pretrain as pretrain_captioner

    pretrain_captioner(
        preset,
        text=text,
        out=out,
        captions=captions,
        split=split,
        skip_bad=skip_bad,
        **overrides,
    )
    typer.echo(f"{out / 'captioner'}: for `bmt train --start`")
