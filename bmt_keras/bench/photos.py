"""Photos and captions to measure on, made on the spot.

Their content means nothing; what costs time is as in Flickr8k's and COCO's
captions and photos: how long captions are, how often they say a word again, and
how large the files are.
"""

import json
from pathlib import Path

import cv2
import numpy as np

CAPTIONS_A_PHOTO = 5
HEIGHT, WIDTH = 480, 640
_FEWEST_WORDS = 5
# With the fewest words, a mean of 11.8 and a deviation of 3.9, as Flickr8k's.
_MEAN, _VARIANCE = 6.8, 15.0
_WORDS = 20_000


def write_photos(folder: Path, *, count: int, seed: int = 0) -> None:
    """Writes photos and captions in COCO's layout.

    Args:
        folder: Takes `captions.json` and `images/`.
        count: Number of photos.
        seed: Seed of all draws.
    """
    rng = np.random.default_rng(seed)
    images = folder / "images"
    images.mkdir(parents=True)
    for number in range(1, count + 1):
        _, data = cv2.imencode(".jpg", _draw(rng))
        (images / f"{number}.jpg").write_bytes(data.tobytes())
    captions = iter(_write_captions(rng, count * CAPTIONS_A_PHOTO))
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg"}
            for number in range(1, count + 1)
        ],
        "annotations": [
            {
                "id": number * CAPTIONS_A_PHOTO + i,
                "image_id": number,
                "caption": next(captions),
            }
            for number in range(1, count + 1)
            for i in range(CAPTIONS_A_PHOTO)
        ],
    }
    path = folder / "captions.json"
    path.write_text(json.dumps(content), encoding="utf-8")


def make_words(count: int) -> list[str]:
    """Different words of letters.

    Args:
        count: How many.
    """
    words = []
    for number in range(count):
        letters = ""
        for _ in range(4):
            number, letter = divmod(number, 26)
            letters += chr(ord("a") + letter)
        words.append(letters)
    return words


def _draw(rng: np.random.Generator) -> np.ndarray:
    """Soft shapes with some grain: a JPEG of 60 to 100 kB."""
    coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
    photo = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    fine = rng.integers(0, 40, (HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    return cv2.add(photo, cv2.resize(fine, (WIDTH, HEIGHT)))


def _write_captions(rng: np.random.Generator, count: int) -> list[str]:
    words = np.array(make_words(_WORDS))
    chances = 1 / (np.arange(_WORDS) + 2.7)  # Zipf's law
    share = _MEAN / _VARIANCE
    lengths = _FEWEST_WORDS + rng.negative_binomial(
        _MEAN * share / (1 - share), share, count
    )
    drawn = rng.choice(words, lengths.sum(), p=chances / chances.sum())
    ends = np.cumsum(lengths)
    return [" ".join(part) for part in np.split(drawn, ends)[:count]]
