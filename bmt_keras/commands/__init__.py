"""The command line: a file per command, imports of Keras inside them."""

import io
import logging
import os
import sys
from typing import Annotated

import typer

from bmt_keras import __version__
from bmt_keras.commands.caption import caption
from bmt_keras.commands.early import EarlyCommand
from bmt_keras.commands.evaluate import evaluate
from bmt_keras.commands.export import export
from bmt_keras.commands.options import document
from bmt_keras.commands.prepare import prepare
from bmt_keras.commands.pretrain import pretrain
from bmt_keras.commands.request import request
from bmt_keras.commands.sample import sample
from bmt_keras.commands.score import score
from bmt_keras.commands.serve import serve
from bmt_keras.commands.startup import explain
from bmt_keras.commands.train import train

BAD_INPUT, INTERRUPTED = 2, 130

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"bmt-keras {__version__}")
        raise typer.Exit


@app.callback()
def _bmt(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, help="Show it.")
    ] = False,
) -> None:
    """Image captioning with masked language models."""


for each in (sample, prepare, pretrain, train, evaluate, score, caption):
    app.command(cls=EarlyCommand)(document(each))
for each in (export, serve, request):
    app.command(cls=EarlyCommand)(document(each))


def main() -> None:
    """Runs `bmt`; bad input ends in one sentence and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        # Typer takes a pipe to be 80 columns wide; the help is written for 100.
        os.environ.setdefault("TERMINAL_WIDTH", "100")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may hold bytes that are no UTF-8.
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        app()
    except SystemExit as error:
        # Typer has already turned Ctrl-C into this code.
        if error.code == INTERRUPTED:
            _end(f"Interrupted{_describe_next(sys.argv[1:])}.", INTERRUPTED)
        raise
    except Exception as error:
        _end(explain(error), BAD_INPUT)


def _describe_next(arguments: list[str]) -> str:
    """Says that the same command goes on, where it does."""
    goes_on = {*arguments[:1]} & {"train", "pretrain", "prepare"}
    # What is printed is not kept.
    if arguments[:1] == ["caption"]:
        goes_on = {x for x in arguments if x.startswith("--out")}
    return "; the same command goes on" if goes_on else ""


def _end(message: str, code: int) -> None:
    print(f"bmt: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
