"""A tiny captioner and a tiny sample that many tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.util

import keras
import pytest

from bmt_keras.captioner import Captioner
from bmt_keras.data.captions import read_captions
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.models import build_image_tower, build_masked_lm
from bmt_keras.sample import write_sample
from bmt_keras.settings import Settings

# Apache Beam needs an environment of its own: `make beam`.
collect_ignore = [] if importlib.util.find_spec("apache_beam") else ["beam"]

TINY = Settings().replace(
    image_height=16,
    image_width=16,
    text_num_layers=1,
    text_num_heads=2,
    text_embedding_dim=8,
    text_hidden_dim=16,
    text_intermediate_dim=16,
    sequence_length=18,
    max_positions=18,
    fusion_num_layers=1,
    fusion_num_heads=2,
    concept_dim=8,
    batch_size=8,
    epochs=2,
    passes=3,
    length_candidates=2,
)


def make_captioner(settings, tokenizer, encoder=None):
    keras.utils.set_random_seed(0)
    encoder = encoder or build_image_tower(settings)
    model = build_masked_lm(settings, tokenizer, image_tower=encoder)
    return Captioner(
        model,
        tokenizer,
        settings=settings,
        image_tower=encoder,
        length_counts=[0, 0, 1, 5, 3] + [0] * 12,
    )


@pytest.fixture(scope="session")
def tiny_settings():
    return TINY


@pytest.fixture(scope="session")
def tiny_sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "sample"
    write_sample(folder, num_train=24, num_val=8, seed=0)
    return folder


@pytest.fixture(scope="session")
def sample_photos(tiny_sample):
    return tuple(
        read_captions(
            tiny_sample / f"captions_{side}.json", tiny_sample / "images" / side
        )
        for side in ("train", "val")
    )


@pytest.fixture(scope="session")
def tokenizer(sample_photos):
    train, _ = sample_photos
    return CaptionTokenizer.from_captions(
        caption for photo in train for caption in photo.captions
    )


@pytest.fixture(scope="session")
def tiny_captioner(tokenizer):
    return make_captioner(TINY, tokenizer)


@pytest.fixture(scope="session")
def frozen_tower_captioner(tokenizer):
    """As the notebook: frozen image tower, concatenation, no length head."""
    encoder = build_image_tower(TINY)
    encoder.trainable = False
    settings = TINY.replace(
        image_trainable=False,
        fusion="concat",
        concept_dim=0,
        predict_length=False,
        mask_rate=0.15,
    )
    return make_captioner(settings, tokenizer, encoder)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Writes what tests printed so that any process can read it.

    Names of files that are no UTF-8 are printed with lone surrogates, which
    pytest-xdist cannot send.
    """
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode())
        for title, text in report.sections
    ]
    return report
