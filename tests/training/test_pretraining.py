import gzip

import numpy as np
import pytest

from bmt_keras.errors import InputError
from bmt_keras.training.pretraining import (
    pretraining_settings,
    read_lines,
    text_data,
)

TEXTS = [
    f"a {word} dog runs" for word in ["red", "blue", "big", "small", "old"]
]


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_texts_are_read_a_line_each(tmp_path, suffix):
    path = tmp_path / f"captions{suffix}"
    content = "\n".join(["", *TEXTS, "  ", ""]).encode()
    path.write_bytes(gzip.compress(content) if suffix == ".txt.gz" else content)
    assert read_lines(path) == TEXTS


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
        read_lines(tmp_path / name)


def test_every_text_is_on_one_side_of_a_blank_image():
    image = np.zeros((1, 4, 3, 2), np.float16)
    data = text_data(TEXTS * 10, image, seed=0)
    train, val = data.train[0].captions, data.val[0].captions
    assert (len(train), len(val)) == (48, 2)
    assert sorted(train + val) == sorted(TEXTS * 10)
    assert not data.train_features.array.any()
    assert data.val_features.array.shape == (1, 4, 3, 2)
    assert data.val_features.array.dtype == np.float16


def test_settings_need_neither_images_nor_their_weights():
    settings = pretraining_settings("small", {"batch_size": 12})
    assert settings.image.weights == "random"
    assert settings.batches.group_size == 12
    assert settings.fusion.concept_dim == 0
    with pytest.raises(InputError, match="`fusion` must be 'cross_attention'"):
        pretraining_settings("notebook", {})
