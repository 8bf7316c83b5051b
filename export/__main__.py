"""`python -m bmt_keras.export`: what `bmt export` does."""

import typer

from bmt_keras.commands.export import export

if __name__ == "__main__":
    typer.run(export)
