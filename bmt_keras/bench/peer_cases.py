"""Captioning beside other captioners, in PyTorch, by one process or the other.

Never both at once: PyTorch beside another busy process slows down many times
over.
"""

import atexit
import importlib.util
import sys
from functools import cache, partial
from pathlib import Path

from bmt_keras.bench.captioning_cases import CaptioningCases
from bmt_keras.bench.case import Case, CaseBuilders, Row
from bmt_keras.bench.options import BenchOptions
from bmt_keras.bench.peer_process import TOKENS, PeerProcess
from bmt_keras.errors import InputError

BATCHES = (1, 8)
GIT, BLIP = "GIT-base", "BLIP-base"
_WORKER = "bmt_keras.bench.peer_worker"
# Passes and how many times as fast as GIT and BLIP each is to be.
_OURS = {"notebook": (4, 2, 3), "coco": (4, 2, 3), "small": (10, 5, 5)}


def peer_rows() -> list[Row]:
    """The lines about peers."""
    rows = []
    for batch in BATCHES:
        for preset, (passes, *wanted) in _OURS.items():
            ours = _ours(preset, passes, batch)
            for peer, times in zip((GIT, BLIP), wanted, strict=True):
                rows.append(
                    Row(
                        ours,
                        {ours: 1},
                        {_theirs(peer, batch): 1},
                        at_least=times,
                    )
                )
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
            for preset, (passes, *_) in _OURS.items():
                builders[_ours(preset, passes, batch)] = partial(
                    self._own.writing,
                    preset,
                    batch,
                    passes=passes,
                    words=TOKENS,
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


def _ours(preset: str, passes: int, batch: int) -> str:
    return f"{preset}, {passes} passes, {TOKENS} tokens, batch {batch}"


def _theirs(peer: str, batch: int) -> str:
    return f"{peer}, {TOKENS} tokens, batch {batch}"
