import gzip

import numpy as np
import pytest

from bmt_keras import training
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower

TEXTS = [
    f"a {word} dog runs" for word in ["red", "blue", "big", "small", "old"]
]


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_texts_are_read_a_line_each(tmp_path, suffix):
    path = tmp_path / f"captions{suffix}"
    content = "\n".join(["", *TEXTS, "  ", ""]).encode()
    path.write_bytes(gzip.compress(content) if suffix == ".txt.gz" else content)
    assert training.read_caption_texts(path) == TEXTS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.txt", None, "FileNotFoundError"),
        ("bad.txt", b"\xff\xfe\xff", "UnicodeDecodeError"),
        ("bad.txt.gz", b"no archive", "BadGzipFile"),
        ("short.txt", b"one caption\n", "at least two captions"),
    ],
)
def test_file_that_holds_no_texts_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: expected .*{message}"):
        training.read_caption_texts(tmp_path / name)


def test_every_text_is_on_one_side():
    data = training.text_data(TEXTS * 10, (2, 2, 3), seed=0)
    train, val = data.train[0].captions, data.val[0].captions
    assert (len(train), len(val)) == (48, 2)
    assert sorted(train + val) == sorted(TEXTS * 10)
    assert not data.train_features.array.any()


def test_blank_photo_has_the_shape_that_the_model_takes(tiny_settings):
    encoder = build_image_tower(tiny_settings)
    shape = tuple(encoder.input.shape[1:])
    data = training.text_data(TEXTS, shape, seed=0)
    assert data.val_features.array.shape == (1, *shape)
    assert data.val_features.array.dtype == np.float16
