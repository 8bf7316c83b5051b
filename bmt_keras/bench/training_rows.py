"""The lines about training, and the cases that they are made of."""

from bmt_keras.bench.case import Row
from bmt_keras.bench.options import EPOCHS

NOTEBOOK = "notebook's step"
ALBERT = "bare ALBERT forward"
LIVE, BUCKETED = "live, batch 8", "live, batch 8, buckets"
CACHING = "caching of a masking"
CACHED, CACHED_64 = "cached, batch 8", "cached, batch 64"
PIPELINE = "input pipeline: {}"
_MASKINGS = (1, 2, 5)


def training_rows() -> list[Row]:
    """The lines about training."""
    return [
        Row(NOTEBOOK, {NOTEBOOK: 1}, {ALBERT: 1}, at_most=1.3),
        Row(LIVE, {LIVE: 1}, {NOTEBOOK: 1}, at_least=1.3),
        Row(BUCKETED, {BUCKETED: 1}, {NOTEBOOK: 1}, at_least=1.3),
        Row(CACHING, {CACHING: 1}, {ALBERT: 1}),
        *_cached_rows(CACHED, at_least=10),
        *_cached_rows(CACHED_64, at_least=15),
    ]


def pipeline_rows() -> list[Row]:
    """The lines about the input pipeline: it against what training takes."""
    return [
        Row(
            PIPELINE.format(name),
            {PIPELINE.format(name): 1},
            {name: 1},
            at_least=5,
        )
        for name in (LIVE, CACHED, CACHED_64)
    ]


def _cached_rows(name: str, *, at_least: float) -> list[Row]:
    reference = {NOTEBOOK: 1.0}
    rows = [Row(f"{name}, step alone", {name: 1}, reference)]
    for maskings in _MASKINGS:
        parts = {name: 1.0, CACHING: maskings / EPOCHS}
        of = f"{name}, {EPOCHS} epochs, {maskings} maskings"
        wanted = at_least if maskings == _MASKINGS[0] else None
        rows.append(Row(of, parts, reference, at_least=wanted))
    return rows
