"""What a run began with is kept, and what differs is said in words."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.errors import InputError
from bmt_keras.training.identity import check_identity, identify

WORDS = ["<pad>", "\u2581a", "\u2581dog", "\u2581runs"]
TEXTS = ("a dog", "a dog runs")


class Start:
    """In place of a model to start from."""

    def __init__(self, weight):
        self.weight = weight

    def get_weights(self):
        return [np.float32([self.weight])]


def make(sides, words=WORDS, start=None):
    images = [
        [
            CaptionedImage(key, Path(f"folder/{name}"), texts)
            for key, (name, texts) in enumerate(side)
        ]
        for side in sides
    ]
    return identify(images, SimpleNamespace(vocabulary=words), start)


def photos(first, count, texts=TEXTS):
    return [(f"{n}.jpg", texts) for n in range(first, first + count)]


TRAIN, VAL = photos(0, 40), photos(40, 5)
SIDES = [TRAIN, VAL]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (make([TRAIN + photos(90, 18), VAL]), "images added (18);"),
        (make([TRAIN[1:], VAL]), "images missing (1);"),
        (make([TRAIN + VAL[:2], VAL[2:]]), "images on the other side (2);"),
        (
            make([photos(0, 31, ("a dog", "a cat")) + TRAIN[31:], VAL]),
            "captions that differ (31);",
        ),
        (make([TRAIN, photos(40, 1, TEXTS[:1]) + VAL[1:]]), "that differ (1)"),
        (make([TRAIN[::-1], VAL]), "images or captions come in another order;"),
        (make([photos(0, 40, TEXTS[::-1]), VAL]), "captions come in another"),
        (make(SIDES, [*WORDS, "x"]), "the vocabulary has 5 tokens, this run's"),
        (
            make(SIDES, [*WORDS[:1], *WORDS[:0:-1]]),
            "2 tokens of the vocabulary are others, such as '\u2581runs' in",
        ),
        (make(SIDES, start=Start(1)), "start from (--start) was not given;"),
    ],
)
def test_difference_is_said_in_words(tmp_path, changed, message):
    path = tmp_path / "identity.json.gz"
    ours = make(SIDES)
    path.write_bytes(check_identity(path, ours))
    check_identity(path, ours)
    with pytest.raises(InputError) as refused:
        check_identity(path, changed)
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path}: the folder holds a run")


def test_captioner_to_start_from_is_the_same_one(tmp_path):
    path = tmp_path / "identity.json.gz"
    path.write_bytes(check_identity(path, make(SIDES, start=Start(1))))
    check_identity(path, make(SIDES, start=Start(1)))
    for start, fault in ((Start(2), "is another one"), (None, "is missing")):
        with pytest.raises(InputError, match=rf"\(--start\) {fault};"):
            check_identity(path, make(SIDES, start=start))


def test_photo_of_the_same_name_and_another_size_is_another_one(tmp_path):
    path, photo = tmp_path / "identity.json.gz", tmp_path / "1.jpg"
    sides = [[CaptionedImage(1, photo, TEXTS)], []]
    tokenizer = SimpleNamespace(vocabulary=WORDS)
    photo.write_bytes(b"one")
    path.write_bytes(check_identity(path, identify(sides, tokenizer, None)))
    photo.write_bytes(b"other")
    with pytest.raises(InputError, match=r"images of another size \(1\);"):
        check_identity(path, identify(sides, tokenizer, None))


def test_photos_of_one_name_in_several_folders_are_several(tmp_path):
    path = tmp_path / "identity.json.gz"
    same = [("0.jpg", ("a dog",)), ("0.jpg", ("a cat",))]
    path.write_bytes(check_identity(path, make([same, VAL])))
    check_identity(path, make([same, VAL]))
    with pytest.raises(InputError, match=r": images added \(1\);"):
        check_identity(path, make([[*same, same[1]], VAL]))


def test_damaged_file_is_named(tmp_path):
    path = tmp_path / "identity.json.gz"
    content = check_identity(path, make(SIDES))
    for damaged in (b"", content[:-9], b"text", content[:40] + content[60:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"identity.json.gz cannot be rea"):
            check_identity(path, make(SIDES))
