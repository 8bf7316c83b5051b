"""A model behind a frozen ALBERT, and its cached states."""

import keras
import pytest

from bmt_keras import training
from bmt_keras.data.batches import CaptionBatches
from bmt_keras.models import (
    build_image_tower,
    build_masked_lm,
)
from bmt_keras.training.text_cache import TextCache


@pytest.fixture(scope="module")
def settings(tiny_settings):
    """As the notebook: ALBERT and the image model are frozen."""
    return tiny_settings.replace(
        image_trainable=False,
        text_trainable=False,
        fusion="concat",
        concept_dim=0,
        predict_length=False,
        mask_rate=0.15,
        bucket_width=0,
        cached_maskings=2,
        redraw_epochs=2,
        epochs=4,
    )


@pytest.fixture(scope="module")
def image_tower(settings):
    keras.utils.set_random_seed(0)
    trained = settings.replace(image_trainable=True)
    encoder = build_image_tower(trained)
    encoder.trainable = False
    return encoder


@pytest.fixture(scope="module")
def data(sample_photos, settings, image_tower, tmp_path_factory):
    return training.prepare_data(
        *sample_photos,
        training.feature_source(settings, image_tower),
        cache=tmp_path_factory.mktemp("features"),
    )


@pytest.fixture
def make_model(settings, tokenizer, image_tower):
    def make(**changes):
        keras.utils.set_random_seed(0)
        return build_masked_lm(
            settings.replace(**changes),
            tokenizer,
            image_tower=image_tower,
        )

    return make


@pytest.fixture
def make_batches(data, tokenizer):
    def make(**options):
        return CaptionBatches(
            data.train,
            data.train_features,
            tokenizer=tokenizer,
            image_input="image_embedding",
            batch_size=8,
            sequence_length=18,
            bucket_width=0,
            **options,
        )

    return make


@pytest.fixture
def batches(make_batches):
    return make_batches()


@pytest.fixture
def make_cache(batches, settings, tokenizer, make_model, tmp_path):
    def make(model=None, *, source=batches, **changes):
        return TextCache(
            source,
            model or make_model(),
            settings=settings.replace(**changes),
            tokenizer=tokenizer,
            steps_per_epoch=source.steps_per_epoch,
            folder=tmp_path / "states",
        )

    return make
