from itertools import islice

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.models import (
    masked_token_trainer,
)
from bmt_keras.models.masked_batch import mask_batch


def stored(folder, masking=0):
    """All columns of a masking's shards."""
    paths = sorted(folder.glob(f"round-*/masking-{masking:02d}/*.npz"))
    shards = [dict(np.load(path)) for path in paths]
    return {
        name: np.concatenate([shard[name] for shard in shards])
        for name in ("captions", "image_ids", "positions", "labels")
    }


def masked_live(batches, tokenizer, columns, planned):
    """The live path's inputs and targets with the masks of a cache."""
    batch = batches.gather(planned)
    token_ids, positions, labels = batch["token_ids"].copy(), [], []
    for row, caption in enumerate(planned.captions):
        for i in np.flatnonzero(columns["captions"] == caption):
            place, label = columns["positions"][i], columns["labels"][i]
            assert token_ids[row, place] == label
            token_ids[row, place] = tokenizer.mask_token_id
            positions.append(row * token_ids.shape[1] + place)
            labels.append(label)
    image = batch["image_embedding"].astype(np.float32)
    inputs = {
        **batch,
        "token_ids": token_ids,
        "image_embedding": image,
        "mask_positions": np.array(positions, np.int32),
    }
    weight = np.ones(len(labels), np.float32)
    if "caption_weight" in batch:
        rows = inputs["mask_positions"] // token_ids.shape[1]
        weight = batch["caption_weight"][rows]
    return inputs, {
        "labels": np.array(labels, np.int32),
        "is_masked": np.ones(len(labels), np.float32),
        "sample_weight": weight,
        "caption_weight": batch.get("caption_weight"),
    }


def judge(model, inputs, targets):
    """Loss, and gradients of all that is trained."""
    inputs = {k: tf.convert_to_tensor(v) for k, v in inputs.items()}
    with tf.GradientTape() as tape:
        outputs = model.predict_masked(inputs, training=True)
        loss = model.total_loss(inputs, outputs, targets)
    return float(loss), tape.gradient(loss, model.trainable_weights)


# === Equal to the live path ===


@pytest.mark.parametrize("extra", [{}, {"length": True}, {"weights": True}])
def test_loss_and_gradients_are_those_of_the_live_path(
    data, tokenizer, make_model, make_cache, tmp_path, extra, make_batches
):
    model = make_model(predict_length="length" in extra)
    weights = {
        photo.image_id: np.linspace(0.5, 1.5, len(photo.captions))
        for photo in data.train
    }
    options = {"caption_weights": weights} if "weights" in extra else {}
    batches = make_batches(**options)
    cache = make_cache(model, source=batches)
    dataset = cache.dataset()
    columns = stored(tmp_path / "states")
    assert len(columns["labels"]) >= len(batches)
    plan = list(islice(batches.plan.from_step(0), 3))
    for planned, batch in zip(plan, dataset.take(3), strict=True):
        expected, live_gradients = judge(
            model, *masked_live(batches, tokenizer, columns, planned)
        )
        loss, gradients = judge(
            model, *mask_batch(batch, model.masking, training=True)
        )
        assert loss == pytest.approx(expected, abs=1e-5)
        for one, other in zip(gradients, live_gradients, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_training_steps_are_those_of_the_live_path(
    batches, tokenizer, make_model, make_cache, tmp_path, monkeypatch
):
    models = [make_model(), make_model()]
    for model in models:
        model.compile(
            optimizer=keras.optimizers.Adam(1e-2, clipnorm=1.0),
            jit_compile=False,
            run_eagerly=True,
        )
    dataset = make_cache(models[0]).dataset()
    columns = stored(tmp_path / "states")
    for planned, batch in zip(
        islice(batches.plan.from_step(0), 4), dataset.take(4), strict=True
    ):
        cached = models[0].train_on_batch(batch, return_dict=True)
        inputs, targets = masked_live(batches, tokenizer, columns, planned)
        inputs = {k: tf.convert_to_tensor(v) for k, v in inputs.items()}
        with monkeypatch.context() as patch:
            patch.setattr(
                masked_token_trainer,
                "mask_batch",
                lambda *_, i=inputs, t=targets, **__: (i, t),
            )
            live = models[1].train_on_batch(inputs, return_dict=True)
        for name in ("loss", "masked_accuracy"):
            assert float(cached[name]) == pytest.approx(
                float(live[name]), abs=1e-5
            )
    for one, other in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("accumulation", [None, 2])
def test_compiled_updates_are_the_optimizers_own(
    make_model, make_cache, accumulation
):
    models = [make_model(), make_model()]
    dataset = make_cache(models[0]).dataset()
    for model, eagerly in zip(models, (False, True), strict=True):
        model.compile(
            optimizer=keras.optimizers.Adam(
                1e-2, clipnorm=1.0, gradient_accumulation_steps=accumulation
            ),
            jit_compile=False,
            run_eagerly=eagerly,
        )
        model.optimizer.build(model.trainable_variables)
    for batch in dataset.take(4):
        losses = [
            float(model.train_on_batch(batch, return_dict=True)["loss"])
            for model in models
        ]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for one, other in zip(
        models[0].trainable_weights, models[1].trainable_weights, strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert int(models[0].optimizer.iterations) == 4 // (accumulation or 1)


def test_the_photo_of_each_state_is_that_of_its_caption(
    batches, make_cache, tmp_path
):
    make_cache().dataset()
    columns = stored(tmp_path / "states")
    np.testing.assert_array_equal(
        columns["image_ids"], batches.caption_image_ids[columns["captions"]]
    )


# === Maskings ===


def test_each_pass_takes_the_next_masking_and_each_round_others(
    batches, make_cache, tmp_path
):
    folder, steps = tmp_path / "states", batches.steps_per_epoch
    cache = make_cache()
    seen = []
    for start in (0, 2 * steps):
        dataset = cache.dataset(start)
        seen += [stored(folder, masking) for masking in range(2)]
        labels = [batch["labels"].numpy() for batch in dataset.take(2 * steps)]
        for i, of_pass in enumerate((labels[:steps], labels[steps:])):
            assert sorted(np.concatenate(of_pass)) == sorted(
                seen[i - 2]["labels"]
            )
        assert len(list(folder.glob("round-*"))) == 1
    places = [
        tuple(zip(s["captions"], s["positions"], strict=True)) for s in seen
    ]
    assert len(set(places)) == 4


def test_only_captions_whose_turn_comes_are_encoded(
    make_cache, tmp_path, make_batches
):
    """An epoch may end before a pass over all captions does."""
    batches = make_batches()
    batches_of_epoch = 2
    cache = make_cache(source=batches)
    cache._total_steps = cache._steps_of_round = batches_of_epoch
    cache.dataset()
    plan = islice(batches.plan.from_step(0), batches_of_epoch)
    read = np.concatenate([planned.captions for planned in plan])
    assert set(stored(tmp_path / "states")["captions"]) == set(read)
    assert not list((tmp_path / "states").glob("*/masking-01"))


def test_maskings_depend_on_the_seed_alone(make_cache, tmp_path):
    folder = tmp_path / "states"
    make_cache().dataset()
    first = stored(folder)
    folder.rename(tmp_path / "earlier")
    keras.utils.set_random_seed(99)
    make_cache().dataset()
    for name, value in stored(folder).items():
        np.testing.assert_array_equal(value, first[name])
    folder.rename(tmp_path / "later")
    make_cache(seed=1).dataset()
    assert not np.array_equal(stored(folder)["positions"], first["positions"])
