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
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Any

from measure import Case, Group, Options, Row, main, own_process

BATCHES = (1, 8)
TOKENS = 20  # of a caption
GIT, BLIP = "GIT-base", "BLIP-base"
_BASE, _SMALL, _FREE = {GIT: 2, BLIP: 3}, {GIT: 5, BLIP: 5}, {GIT: None}
# Preset, passes, whether several lengths are tried, up to the peers', and how
# many times as fast as each peer it is to be.
_OURS = (
    ("notebook", 4, False, _BASE),
    ("coco", 4, False, _BASE),
    ("small", 4, False, _SMALL),
    ("small", 10, False, _SMALL),
    ("coco", 4, True, _FREE),
    ("small", 10, True, _FREE),
)


def make_group() -> Group:
    rows, cases = [], {}
    for batch in BATCHES:
        size = f"{TOKENS} tokens, batch {batch}"
        for peer in (GIT, BLIP):
            name = f"{peer}, {size}"
            cases[name] = partial(ask_peer, peer=peer, batch=batch)
            rows.append(Row(name, {name: 1}))
        for preset, passes, is_length_free, wanted in _OURS:
            lengths = "lengths up to " if is_length_free else ""
            name = f"{preset}, {passes} passes, {lengths}{size}"
            cases[name] = partial(
                write,
                preset=preset,
                batch=batch,
                passes=passes,
                is_length_free=is_length_free,
            )
            rows += [
                Row(name, {name: 1}, {f"{peer}, {size}": 1}, at_least=times)
                for peer, times in wanted.items()
            ]
    return Group("peers", rows, cases)


def write(options: Options, **settings: Any) -> Case:
    # Not above: the process of PyTorch imports this file, but no TensorFlow.
    import captioning

    return captioning.write(options, tokens=TOKENS, **settings)


def ask_peer(_: Options, *, peer: str, batch: int) -> Case:
    def run() -> None:
        _pool().submit(caption_with, peer, batch).result()

    return Case(run, items=batch)


@cache
def _pool() -> ProcessPoolExecutor:
    return own_process()


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


GROUPS = [make_group()]

if __name__ == "__main__":
    if importlib.util.find_spec("torch") is None:
        sys.exit("peers.py needs PyTorch, which is not here: make bench-peers.")
    main(__doc__, GROUPS)
