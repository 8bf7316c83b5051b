"""A model behind a frozen ALBERT, and its cached states."""

from itertools import islice

import keras
import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.captioner import Captioner
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower, build_masked_lm
from bmt_keras.training import masked_state_cache
from bmt_keras.training.data import make_batches, prepare_data
from bmt_keras.training.masked_state_cache import (
    MaskedStateCache,
    masked_token_row,
)
from bmt_keras.training.run import Run


@pytest.fixture(scope="module")
def settings(tiny_settings):
    """As the notebook: ALBERT and the image tower are frozen."""
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
    image_tower = build_image_tower(settings.replace(image_trainable=True))
    image_tower.trainable = False
    return image_tower


@pytest.fixture(scope="module")
def data(sample_photos, settings, image_tower, tmp_path_factory):
    cache = tmp_path_factory.mktemp("features")
    return prepare_data(
        settings, *sample_photos, image_tower=image_tower, cache=cache
    )


@pytest.fixture
def make_model(settings, tokenizer, image_tower):
    def make(**changes):
        keras.utils.set_random_seed(0)
        return build_masked_lm(
            settings.replace(**changes), tokenizer, image_tower=image_tower
        )

    return make


@pytest.fixture(scope="module")
def batches(data, settings, tokenizer):
    return make_batches(data.train, data.train_features, settings, tokenizer)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "states"


@pytest.fixture
def make_cache(batches, settings, tokenizer, make_model, folder):
    def make(model=None, *, source=batches, **changes):
        changed = settings.replace(**changes)
        model = model or make_model()
        return MaskedStateCache(source, model, changed, tokenizer, folder)

    return make


@pytest.fixture
def stored(folder, settings):
    def stored(masking=0):
        """All rows of a masking: its files end with a checksum of 4 bytes."""
        row = masked_token_row(settings.text.hidden_dim)
        paths = sorted(folder.glob(f"round-*/masking-{masking:02d}/*.rows"))
        return np.concatenate(
            [np.frombuffer(path.read_bytes()[:-4], row) for path in paths]
        )

    return stored


def mask_live(batches, tokenizer, rows, planned):
    """A batch with the masks of a cache, and the labels of each position."""
    batch = batches.gather(planned)
    token_ids = batch["token_ids"].copy()
    labels = np.full(token_ids.shape, -1)
    for i, caption in enumerate(planned.captions):
        for each in rows[rows["caption"] == caption]:
            assert token_ids[i, each["position"]] == each["label"]
            labels[i, each["position"]] = each["label"]
    token_ids[labels >= 0] = tokenizer.mask_token_id
    return {**batch, "token_ids": token_ids}, labels


def loss_by_hand(model, batch, labels):
    """Mean loss of the masked tokens, and of the lengths where predicted."""
    image = tf.cast(batch["image_embedding"], tf.float32)
    logits = model.token_logits(
        tf.constant(batch["token_ids"]),
        tf.constant(batch["padding_mask"]),
        image,
    )
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    is_masked = labels >= 0
    loss = tf.reduce_mean(cross_entropy(labels[is_masked], logits[is_masked]))
    if model.length_head is not None:
        lengths = batch["padding_mask"].sum(axis=1) - 2
        losses = cross_entropy(lengths, model.length_head(image, training=True))
        loss += model.length_loss_weight * tf.reduce_mean(losses)
    return loss


def assert_close(weights, expected):
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


# === Equal to the live path ===


@pytest.mark.parametrize("predict_length", [False, True])
def test_training_steps_are_those_of_the_live_path(
    batches, tokenizer, make_model, make_cache, stored, predict_length
):
    cached = make_model(predict_length=predict_length)
    live = make_model(predict_length=predict_length)
    cached.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    optimizer = keras.optimizers.SGD(0.1)
    dataset = make_cache(cached).dataset()
    rows = stored()
    assert len(rows) >= len(batches)
    plan = islice(batches.plan(0), 4)
    for planned, batch in zip(plan, dataset.take(4), strict=True):
        found = cached.train_on_batch(batch, return_dict=True)["loss"]
        with tf.GradientTape() as tape:
            expected = loss_by_hand(
                live, *mask_live(batches, tokenizer, rows, planned)
            )
        variables = live.trainable_variables
        optimizer.apply(tape.gradient(expected, variables), variables)
        cached.reset_metrics()
        assert float(found) == pytest.approx(float(expected), abs=1e-5)
    assert_close(cached.weights, live.weights)


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
    assert_close(*(model.trainable_weights for model in models))
    assert int(models[0].optimizer.iterations) == 4 // (accumulation or 1)


# === Maskings ===


def test_each_pass_takes_the_next_masking_and_each_round_others(
    batches, make_cache, folder, stored
):
    steps = batches.steps_per_epoch
    cache = make_cache()
    seen = []
    for start in (0, 2 * steps):
        dataset = cache.dataset(start)
        seen += [stored(masking) for masking in range(2)]
        labels = [batch["labels"].numpy() for batch in dataset.take(2 * steps)]
        for i, of_pass in enumerate((labels[:steps], labels[steps:])):
            assert sorted(np.concatenate(of_pass)) == sorted(
                seen[i - 2]["label"]
            )
        assert len(list(folder.glob("round-*"))) == 1
    names = ("caption", "position")
    masked = {tuple(rows[name].tobytes() for name in names) for rows in seen}
    assert len(masked) == 4


def test_only_captions_whose_turn_comes_are_encoded(
    batches, make_cache, folder, stored
):
    """An epoch may end before a pass over all captions does."""
    make_cache(steps_per_epoch=1, redraw_epochs=2, epochs=2).dataset()
    plan = islice(batches.plan(0), 2)
    read = np.concatenate([planned.captions for planned in plan])
    assert set(stored()["caption"]) == set(read)
    assert not list(folder.glob("*/masking-01"))


def test_maskings_depend_on_the_seed_alone(
    make_cache, folder, stored, tmp_path
):
    make_cache().dataset()
    first = stored()
    folder.rename(tmp_path / "earlier")
    keras.utils.set_random_seed(99)
    make_cache().dataset()
    np.testing.assert_array_equal(stored(), first)
    folder.rename(tmp_path / "later")
    make_cache(seed=1).dataset()
    assert not np.array_equal(stored()["position"], first["position"])


# === Stale, damaged and stopped caches ===


def test_stale_cache_is_refused(
    make_cache, make_model, data, settings, tokenizer
):
    make_cache().dataset()
    other = make_model()
    table = other.text_tower.token_embedding.embeddings
    table.assign(table + 1e-3)
    for field, stale in {
        "text_weights": make_cache(other),
        "seed": make_cache(seed=5),
        "cached_maskings": make_cache(cached_maskings=1),
        "redraw_epochs": make_cache(redraw_epochs=4),
        "masking.rate": make_cache(make_model(mask_rate=0.5)),
        "read_captions": make_cache(steps_per_epoch=1),
    }.items():
        rule = rf"`{field}` (is|are) .* delete the"
        with pytest.raises(InputError, match=rule):
            stale.dataset()
    features = data.train_features
    fewer = make_batches(data.train[:4], features, settings, tokenizer)
    with pytest.raises(InputError, match="its `captions` are others"):
        make_cache(source=fewer).dataset()


def test_damaged_and_lost_shards_are_computed_again(
    make_cache, folder, monkeypatch, caplog
):
    monkeypatch.setattr(masked_state_cache, "_SHARD_SIZE", 16)
    make_cache().dataset()
    masking = folder / "round-0000" / "masking-00"
    expected = {path.name: path.read_bytes() for path in masking.iterdir()}
    first, second, third, *_ = sorted(masking.glob("*.rows"))
    second.unlink()
    third.write_bytes(third.read_bytes()[:-8])
    kept = first.stat().st_mtime_ns
    make_cache().dataset()
    assert f"{third.name} is computed again" in caplog.text
    assert first.stat().st_mtime_ns == kept
    assert expected == {
        path.name: path.read_bytes() for path in masking.iterdir()
    }


# A stopped fit leaves Keras' CSV log open, as a kill does.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("weights_only")
def test_stopped_run_learns_what_an_unbroken_one_does(
    data, settings, tokenizer, image_tower, batches, tmp_path, stop_at
):
    def run(folder, **options):
        resumable = settings.replace(checkpoint_steps=5)
        run = Run(resumable, folder, verbose=0, **options)
        return run.train(data, tokenizer, image_tower)

    unbroken = run(tmp_path / "unbroken")
    steps = batches.steps_per_epoch
    # Within an epoch of the second round, whose states it has computed.
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", callbacks=[stop_at(3 * steps - 1)])
    stopped = run(tmp_path / "stopped")
    assert int(stopped.model.optimizer.iterations) == 4 * steps
    assert_close(stopped.model.weights, unbroken.model.weights)
    again = Captioner.from_preset(tmp_path / "stopped" / "captioner")
    images = [image.path for image in data.val]
    assert again.caption(images) == stopped.caption(images)
