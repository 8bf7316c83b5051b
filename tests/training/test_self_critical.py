from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bmt_keras.captioner import Captioner
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower, build_masked_lm
from bmt_keras.training.callbacks import load_last
from bmt_keras.training.data import make_batches
from bmt_keras.training.optimizer import count_batches
from bmt_keras.training.run import copy_weights
from bmt_keras.training.self_critical import (
    SelfCriticalBatches,
    without_regularization,
)


@pytest.fixture
def make(data, tiny_captioner):
    """Makes batches of the tiny captioner's samples."""

    def make(num_samples, seed=0):
        settings = tiny_captioner.settings.replace(
            batch_size=6, group_size=2, self_critical_samples=num_samples
        )
        batches = make_batches(
            data.train, data.train_features, settings, tiny_captioner.tokenizer
        )
        return batches, SelfCriticalBatches(
            batches, tiny_captioner, settings.replace(seed=seed), data.train
        )

    return make


def test_weight_is_the_score_less_the_mean_of_the_others(make, tokenizer):
    batches, source = make(num_samples=3)
    planned = next(batches.plan(5))
    batch = next(iter(source.dataset(start_step=5)))
    num_images = batch["images"].shape[0]
    token_ids = batch["token_ids"].numpy().reshape(num_images, 4, -1)
    weights = batch["sample_weight"].numpy().reshape(num_images, 4)
    np.testing.assert_allclose(weights[:, 3], 0.1)
    np.testing.assert_allclose(weights[:, :3].sum(axis=1), 0, atol=1e-5)
    assert np.abs(weights[:, :3]).max() > 0
    image_ids = batches.caption_image_ids[planned.captions]
    image_ids = image_ids.reshape(num_images, -1)[:, 0]
    for image_id, rows, found in zip(
        image_ids, token_ids, weights, strict=True
    ):
        scores = [
            source._cider.score(int(image_id), tokenizer.decode(row))
            for row in rows[:3].tolist()
        ]
        expected = [own - (sum(scores) - own) / 2 for own in scores]
        np.testing.assert_allclose(found[:3], expected, atol=1e-4)


def test_samples_are_scored_as_they_are_written(data, tiny_captioner):
    settings = tiny_captioner.settings.replace(self_critical_samples=2)
    batches = make_batches(
        data.train, data.train_features, settings, tiny_captioner.tokenizer
    )
    images = [
        replace(image, captions=(text, "un chat"))
        for image, text in zip(
            data.train,
            ["un carr\u00e9 bleu", "le chien dort"] * 99,
            strict=False,
        )
    ]
    source = SelfCriticalBatches(batches, tiny_captioner, settings, images)
    score = partial(source._cider.score, images[0].image_id)
    assert score("un carre bleu") > score("un carr\u00e9 bleu") > 0


def test_caption_by_people_follows_the_samples(make, data, tokenizer):
    batches, source = make(num_samples=2)
    planned = next(batches.plan(0))
    batch = next(iter(source.dataset()))
    num_images = len(batch["images"])
    rows = batch["token_ids"].numpy().reshape(num_images, 3, -1)
    given = batches.gather(planned)
    texts = {tokenizer.decode(ids) for ids in given["token_ids"].tolist()}
    assert {tokenizer.decode(ids) for ids in rows[:, 2].tolist()} <= texts
    np.testing.assert_array_equal(
        batch["padding_mask"].numpy() == 1, batch["token_ids"].numpy() != 0
    )
    name = batches._image_input
    np.testing.assert_array_equal(batch["images"].numpy(), given[name])


def test_steps_sample_different_captions_and_the_same_again(make):
    _, source = make(num_samples=2)
    first = next(iter(source.dataset(start_step=1)))["token_ids"].numpy()
    again = next(iter(source.dataset(start_step=1)))["token_ids"].numpy()
    np.testing.assert_array_equal(first, again)
    _, other = make(num_samples=2, seed=1)
    other = next(iter(other.dataset(start_step=1)))["token_ids"].numpy()
    assert first.shape != other.shape or (first != other).any()


def test_nothing_is_regularized_in_a_self_critical_run(tiny_settings):
    settings = tiny_settings.replace(
        text_dropout=0.1,
        fusion_dropout=0.2,
        image_dropout=0.3,
        label_smoothing=0.1,
    )
    assert without_regularization(settings) == settings
    settings = settings.replace(self_critical_samples=2)
    found = without_regularization(settings)
    assert found == tiny_settings.replace(self_critical_samples=2)


# A stopped fit leaves Keras' CSV log open, as a kill does.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_run_by_samples_goes_on_and_leaves_an_ordinary_captioner(
    run, data, tiny_settings, tiny_captioner, stop_at, tmp_path
):
    settings = tiny_settings.replace(
        epochs=1,
        steps_per_epoch=4,
        checkpoint_steps=2,
        self_critical_samples=2,
        ema_momentum=0.9,
        group_size=2,
        drop_final_period=True,
        label_smoothing=0.1,
    )
    start = tiny_captioner.model
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path / "a", start=start, callbacks=[stop_at(3)])
    last = load_last(tmp_path / "a" / "checkpoints")
    assert 0 < count_batches(last.optimizer) < 4
    captioner = run(settings, tmp_path / "a", start=start)
    unbroken = run(settings, tmp_path / "b", start=start)
    assert not captioner.model.trains_as_it_predicts
    assert captioner.settings.optimization.label_smoothing == 0
    weights = zip(
        captioner.model.trainable_weights,
        unbroken.model.trainable_weights,
        start.trainable_weights,
        strict=True,
    )
    for one, other, old in weights:
        np.testing.assert_allclose(one, other, atol=1e-4)
        assert np.abs(np.array(one) - np.array(old)).max() < 0.1
    concepts = (x.model.concept_head for x in (captioner, tiny_captioner))
    for new, old in zip(*(x.trainable_weights for x in concepts), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)
    moved = captioner.model.head.bias - start.head.bias
    assert np.abs(moved).max() > 0
    paths = [image.path for image in data.val[:3]]
    again = Captioner.from_preset(tmp_path / "a" / "captioner")
    assert again.caption(paths) == captioner.caption(paths)
    assert again.calibration == captioner.calibration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_hidden_dim": 8}, "is of another shape: its "),
        ({"fusion_num_layers": 2}, "weights, the settings ask for"),
    ],
)
def test_model_of_another_shape_is_no_start(
    tiny_captioner, tokenizer, tiny_settings, change, message
):
    settings = tiny_settings.replace(**change)
    other = build_masked_lm(
        settings, tokenizer, image_tower=build_image_tower(settings)
    )
    with pytest.raises(InputError, match=message):
        copy_weights(tiny_captioner.model, other)
