"""How fast are captions, compared with GIT and BLIP of transformers?

python tests/benchmarks/peers.py --out benchmarks/peers.json

It needs PyTorch, in an environment of its own (`make bench-peers`). All weights
are random. GIT-base (Wang et al. 2022, arXiv 2205.14100) and BLIP-base (Li et
al. 2022, arXiv 2201.12086) decode greedily, in a process of their own. The two
processes take turns and never compute at once: PyTorch slows down many times
over while another process computes.
"""

import importlib.util
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache, partial
from typing import Any, NamedTuple

from measure import Case, CaseBuilders, Group, Options, Row, main, own_process

BATCHES = (1, 8)
TOKENS = 20  # of a caption
GIT, BLIP = "GIT-base", "BLIP-base"


class _Ours(NamedTuple):
    """A way to caption, and how many times as fast as peers it is to be."""

    preset: str
    passes: int
    wanted: Mapping[str, float | None]
    is_length_free: bool = False  # several are tried, up to the peers'

    def name(self, batch: int) -> str:
        lengths = "lengths up to " if self.is_length_free else ""
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
    _Ours("coco", 4, _FREE, is_length_free=True),
    _Ours("small", 10, _FREE, is_length_free=True),
)


def _theirs(peer: str, batch: int) -> str:
    return f"{peer}, {TOKENS} tokens, batch {batch}"


def make_rows() -> list[Row]:
    rows = []
    for batch in BATCHES:
        for ours in _OURS:
            name = ours.name(batch)
            rows += [
                Row(name, {name: 1}, {_theirs(peer, batch): 1}, at_least=times)
                for peer, times in ours.wanted.items()
            ]
        for peer in (GIT, BLIP):
            rows.append(Row(_theirs(peer, batch), {_theirs(peer, batch): 1}))
    return rows


def build_cases(options: Options, stack: ExitStack) -> CaseBuilders:
    # Not above: the process of PyTorch imports this file, but no TensorFlow.
    import captioning

    pool = stack.enter_context(own_process())

    def build_peer(peer: str, batch: int) -> Case:
        def run() -> None:
            pool.submit(caption_with, peer, batch).result()

        return Case(run, items=batch)

    builders = {}
    for batch in BATCHES:
        for ours in _OURS:
            builders[ours.name(batch)] = partial(
                captioning.write,
                options,
                preset=ours.preset,
                batch=batch,
                passes=ours.passes,
                tokens=TOKENS,
                is_length_free=ours.is_length_free,
            )
        for peer in (GIT, BLIP):
            builders[_theirs(peer, batch)] = partial(build_peer, peer, batch)
    return builders


# === In the process of PyTorch ===


def caption_with(peer: str, batch: int) -> None:
    """Decodes captions of blank images."""
    import torch

    model = _load_peer(peer)
    size = model.config.vision_config.image_size
    with torch.inference_mode():
        model.generate(
            pixel_values=torch.zeros(batch, 3, size, size),
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
            num_beams=1,
        )


@cache
def _load_peer(peer: str) -> Any:
    import transformers

    if peer == GIT:
        config = transformers.GitConfig()
        return transformers.GitForCausalLM(config).eval()
    config = transformers.BlipConfig()
    return transformers.BlipForConditionalGeneration(config).eval()


GROUPS = [Group("peers", make_rows(), build_cases)]

if __name__ == "__main__":
    if importlib.util.find_spec("torch") is None:
        sys.exit("peers.py needs PyTorch, which is not here: make bench-peers.")
    main(__doc__, GROUPS)
