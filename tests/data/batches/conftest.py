"""Captions that name their photo and number, and batches of them."""

import itertools

import numpy as np
import pytest

from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.features import ImageFeatures
from bmt_keras.data.tokenizer import CaptionTokenizer

MAX_LENGTH = 14
NUM_PHOTOS, CAPTIONS_EACH = 12, 3


def words(photo, number):
    """A caption of 1 to 13 words: of 3 to 15 tokens, of which 14 are kept."""
    count = 1 + (5 * photo + 4 * number) % 13
    return " ".join(["a", f"p{photo}", f"n{number}", *"bcdefghijk"][:count])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    return [
        CaptionedImage(
            100 + photo,
            folder / f"{photo}.jpg",
            tuple(words(photo, number) for number in range(CAPTIONS_EACH)),
        )
        for photo in range(NUM_PHOTOS)
    ]


@pytest.fixture(scope="module")
def tokenizer(photos):
    return CaptionTokenizer.from_captions(
        caption for photo in photos for caption in photo.captions
    )


@pytest.fixture(scope="module")
def features(photos):
    """Photo 100 + n has the embedding [n, -n], its rows in reverse order."""
    numbers = np.arange(NUM_PHOTOS)[::-1]
    array = np.stack([numbers, -numbers], axis=1).astype(np.float16)
    return ImageFeatures(array, {100 + n: r for r, n in enumerate(numbers)})


@pytest.fixture
def make(photos, features, tokenizer):
    def batches(**changes):
        options = {
            "photos": photos,
            "features": features,
            "tokenizer": tokenizer,
            "image_input": "image_embedding",
            "batch_size": 4,
            "sequence_length": MAX_LENGTH,
            **changes,
        }
        some = options.pop("photos", photos)
        return CaptionBatches(
            some, options.pop("features", features), **options
        )

    return batches


@pytest.fixture(scope="session")
def take():
    def take(batches, count, start_step=0):
        dataset = batches.dataset(start_step=start_step)
        return list(itertools.islice(dataset.as_numpy_iterator(), count))

    return take


@pytest.fixture(scope="session")
def pairs_of():
    def pairs_of(batch):
        """(photo's number, ids without padding) of each row."""
        return [
            (int(image[0]), tuple(ids[mask == 1].tolist()))
            for image, ids, mask in zip(
                batch["image_embedding"],
                batch["token_ids"],
                batch["padding_mask"],
                strict=True,
            )
        ]

    return pairs_of


@pytest.fixture(scope="session")
def assert_same():
    def assert_same(found, expected):
        for one, other in zip(found, expected, strict=True):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])

    return assert_same
