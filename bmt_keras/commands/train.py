"""`bmt train`: from images and captions to a captioner."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import typer

from bmt_keras.commands import options, startup
from bmt_keras.commands.evaluate import print_metrics
from bmt_keras.presets import resolve_settings
from bmt_keras.training.strategies import check_strategy

LOST_WORKER = 3


@options.with_settings()
def train(
    sides: dict[str, Any],
    out: Path,
    preset: options.Preset = "sample",
    cache: Path | None = None,
    start: str | None = None,
    strategy: str | None = None,
    tpu_address: str | None = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Train a captioner; the same command goes on after a stop.

    Options:
        out: Folder of the run.
        cache: Folder of the images' cache; else in --out.
        start: Begin with the captioner of a folder or hf://...
        strategy: mirrored, multi-worker or tpu.
        tpu_address: Of --strategy tpu, if not in TPU_NAME.
    """
    # What fails soon fails before TensorFlow is loaded.
    resolve_settings(preset, overrides)
    check_strategy(strategy, tpu_address=tpu_address)
    startup.require("pycocoevalcap", "matplotlib")
    startup.load_tensorflow(devices=strategy is None)
    from bmt_keras.training.distributed import (
        LostWorkerError,
        is_chief,
        open_strategy,
    )
    from bmt_keras.training.run import train as train_captioner

    # It logs every sum that it plans.
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    if strategy == "multi-worker":
        print("Waiting for all workers of TF_CONFIG.", file=sys.stderr)
    with startup.silence_start():
        opened = open_strategy(strategy, tpu_address=tpu_address)
    if not is_chief(opened):
        logging.getLogger("bmt_keras").setLevel(logging.WARNING)
    try:
        train_captioner(
            preset,
            out=out,
            cache=cache,
            start=start,
            strategy=opened,
            **sides,
            **overrides,
        )
    except LostWorkerError as error:
        end_without_waiting(error)
    if is_chief(opened):
        print_metrics(out)
        typer.echo(f"{out / 'captioner'}: the captioner")


def end_without_waiting(error: Exception) -> None:
    """Ends the process of a worker that has lost another one."""
    print(f"bmt: {error}", file=sys.stderr, flush=True)
    # An ordinary end would wait a minute for the one that is lost.
    os._exit(LOST_WORKER)
