"""`python -m bmt_keras.export`: what `bmt export` does."""

import typer

from bmt_keras.commands import run
from bmt_keras.commands.export import export

if __name__ == "__main__":
    run(lambda: typer.run(export))
