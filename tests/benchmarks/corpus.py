"""Images and captions to measure with, made on the spot.

They mean nothing, but cost as much time as Flickr8k's and COCO's: captions are
as long and repeat words as often, and files are as large.
"""

import json
from pathlib import Path

import cv2
import numpy as np

CAPTIONS_PER_IMAGE = 5
HEIGHT, WIDTH = 480, 640
_FEWEST_WORDS = 5
# With the fewest words, a mean of 11.8 and a deviation of 3.9, as Flickr8k's.
_MEAN, _VARIANCE = 6.8, 15.0
_WORDS = 20_000


def write_corpus(folder: Path, *, count: int, seed: int = 0) -> None:
    """Writes `captions.json` in COCO's format and `images/`."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    numbers = range(1, count + 1)
    for number in numbers:
        path = folder / "images" / f"{number}.jpg"
        path.write_bytes(make_image(rng))
    captions = _make_captions(rng, count * CAPTIONS_PER_IMAGE)
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in numbers],
        "annotations": [
            {"id": i, "image_id": 1 + i % count, "caption": caption}
            for i, caption in enumerate(captions)
        ],
    }
    (folder / "captions.json").write_text(json.dumps(content), encoding="utf-8")


def make_image(rng: np.random.Generator) -> bytes:
    """Soft shapes with some grain: a JPEG of 60 to 100 kB."""
    coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    fine = rng.integers(0, 40, (HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    grainy = cv2.add(image, cv2.resize(fine, (WIDTH, HEIGHT)))
    return cv2.imencode(".jpg", grainy)[1].tobytes()


def make_words(count: int) -> list[str]:
    """Different words of four letters."""
    letters = [chr(ord("a") + i) for i in range(26)]
    return [
        "".join(letters[number // 26**place % 26] for place in range(4))
        for number in range(count)
    ]


def _make_captions(rng: np.random.Generator, count: int) -> list[str]:
    words = np.array(make_words(_WORDS))
    chances = 1 / (np.arange(_WORDS) + 2.7)  # Zipf's law
    share = _MEAN / _VARIANCE
    lengths = _FEWEST_WORDS + rng.negative_binomial(
        _MEAN * share / (1 - share), share, count
    )
    drawn = rng.choice(words, lengths.sum(), p=chances / chances.sum())
    ends = np.cumsum(lengths)
    return [" ".join(part) for part in np.split(drawn, ends)[:count]]
