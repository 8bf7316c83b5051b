"""Captioning beside other captioners, in PyTorch, by one process or the other.

Never both at once: PyTorch beside another busy process slows down many times
over.
"""

import atexit
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from bmt_keras.bench.captioning_cases import CaptioningCases
from bmt_keras.bench.case import Case, CaseBuilders, Row
from bmt_keras.bench.options import BenchOptions
from bmt_keras.bench.peer_process import TOKENS, PeerProcess
from bmt_keras.errors import InputError

BATCHES = (1, 8)
GIT, BLIP = "GIT-base", "BLIP-base"
_WORKER = "bmt_keras.bench.peer_worker"


class _Ours(NamedTuple):
    """A way to caption, and how many times as fast as others it is to be."""

    preset: str
    passes: int
    beside: Mapping[str, float | None]
    free: bool = False  # the length: several are tried, up to the peers'

    def name(self, batch: int) -> str:
        """Name of its case."""
        lengths = "lengths up to " if self.free else ""
        return (
            f"{self.preset}, {self.passes} passes, {lengths}{TOKENS} tokens, "
            f"batch {batch}"
        )


_BASE, _SMALL, _FREE = {GIT: 2, BLIP: 3}, {GIT: 5, BLIP: 5}, {GIT: None}
_OURS = (
    _Ours("notebook", 4, _BASE),
    _Ours("coco", 4, _BASE),
    _Ours("small", 4, _SMALL),
    _Ours("small", 10, _SMALL),
    _Ours("coco", 4, _FREE, free=True),
    _Ours("small", 10, _FREE, free=True),
)


def peer_rows() -> list[Row]:
    """The lines about peers."""
    rows = []
    for batch in BATCHES:
        for ours in _OURS:
            name = ours.name(batch)
            rows += [
                Row(name, {name: 1}, {_theirs(peer, batch): 1}, at_least=times)
                for peer, times in ours.beside.items()
            ]
        for peer in (GIT, BLIP):
            rows.append(Row(_theirs(peer, batch), {_theirs(peer, batch): 1}))
    return rows


class PeerCases:
    """Builds the cases.

    Args:
        options: What is measured.
        folder: Not used: nothing is written.

    Raises:
        InputError: PyTorch is not installed.
    """

    def __init__(self, options: BenchOptions, folder: Path) -> None:
        """Looks for PyTorch."""
        if importlib.util.find_spec("torch") is None:
            raise InputError(
                "The rows 'peers' need PyTorch, which is not installed: pip "
                "install 'bmt-keras[peers]', in an environment of its own, or "
                "make bench-peers."
            )
        self._own = CaptioningCases(options, folder)
        self._process = cache(self._start)

    @property
    def builders(self) -> CaseBuilders:
        """How each case is built."""
        builders = {}
        for batch in BATCHES:
            for ours in _OURS:
                builders[ours.name(batch)] = partial(
                    self._own.writing,
                    ours.preset,
                    batch,
                    passes=ours.passes,
                    words=TOKENS,
                    free=ours.free,
                )
            for peer in (GIT, BLIP):
                name = _theirs(peer, batch)
                builders[name] = partial(self._peer, peer, batch)
        return builders

    def _peer(self, peer: str, batch: int) -> Case:
        process = self._process()
        return Case(lambda: process.caption(peer, batch=batch), items=batch)

    def _start(self) -> PeerProcess:
        process = PeerProcess([sys.executable, "-m", _WORKER])
        atexit.register(process.close)
        return process


def _theirs(peer: str, batch: int) -> str:
    return f"{peer}, {TOKENS} tokens, batch {batch}"
