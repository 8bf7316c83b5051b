"""A process that captions with another library's models, when asked.

It reads a JSON object a line (`peer`, `batch`, `tokens`), writes captions of so
many photos and answers with a line. PyTorch runs here alone, never in the
process that runs TensorFlow. Weights are random: nothing is downloaded.
"""

import json
import sys
from collections.abc import Callable
from functools import cache
from typing import IO, Any


def build_git() -> Any:
    """GIT-base (Wang et al. 2022, arXiv 2205.14100)."""
    from transformers import GitConfig, GitForCausalLM

    return GitForCausalLM(GitConfig())


def build_blip() -> Any:
    """BLIP-base (Li et al. 2022, arXiv 2201.12086)."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    return BlipForConditionalGeneration(BlipConfig())


PEERS: dict[str, Callable[[], Any]] = {
    "GIT-base": build_git,
    "BLIP-base": build_blip,
}


def write_captions(peer: str, *, batch: int, tokens: int) -> list[int]:
    """Writes captions greedily.

    Args:
        peer: Name of the model.
        batch: Photos, captioned at once.
        tokens: Tokens of each caption, no fewer and no more.

    Returns:
        Shape of the token ids.
    """
    import torch

    model = _load(peer)
    size = model.config.vision_config.image_size
    with torch.inference_mode():
        written = model.generate(
            pixel_values=torch.zeros(batch, 3, size, size),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            num_beams=1,
        )
    return list(written.shape)


@cache
def _load(peer: str) -> Any:
    return PEERS[peer]().eval()


def answer(requests: IO[str], answers: IO[str]) -> None:
    """Answers requests until there are no more.

    Args:
        requests: A JSON object a line.
        answers: Takes a line for each: the shape of what was written.
    """
    for line in requests:
        request = json.loads(line)
        shape = write_captions(
            request["peer"], batch=request["batch"], tokens=request["tokens"]
        )
        answers.write(json.dumps({"shape": shape}) + "\n")
        answers.flush()


if __name__ == "__main__":
    answer(sys.stdin, sys.stdout)
