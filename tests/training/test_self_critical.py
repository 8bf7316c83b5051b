import subprocess
import sys

import keras
import numpy as np
import pytest

from bmt_keras import training
from bmt_keras.captioner import Captioner
from bmt_keras.errors import InputError
from bmt_keras.models import build_image_tower, build_masked_lm
from bmt_keras.training.self_critical import SelfCritical
from bmt_keras.training.start import copy_weights


@pytest.fixture
def batch(sample_photos, tokenizer):
    photos = sample_photos[0][:3]
    ids = tokenizer.encode([photo.captions[0] for photo in photos])
    width = max(map(len, ids))
    token_ids = np.array([row + [0] * (width - len(row)) for row in ids])
    rng = np.random.default_rng(0)
    return {
        "token_ids": token_ids.astype(np.int32),
        "padding_mask": (token_ids != 0).astype(np.int32),
        "images": rng.uniform(0, 255, (3, 16, 16, 3)).astype(np.float32),
        "image_ids": np.array([photo.image_id for photo in photos]),
    }


def make(captioner, photos, **options):
    references = {photo.image_id: photo.captions for photo in photos}
    return SelfCritical(captioner.graph, references, **options)


def test_weights_of_a_photo_sum_to_nothing(
    tiny_captioner, sample_photos, batch
):
    objective = make(tiny_captioner, sample_photos[0], num_captions=4)
    drawn = objective.draw(batch, 0)
    weights = drawn["caption_weight"].numpy().reshape(3, 4)
    assert drawn["token_ids"].shape[0] == 12
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-5)


def test_weight_is_the_score_less_the_mean_of_the_others(
    tiny_captioner, sample_photos, batch, tokenizer
):
    objective = make(
        tiny_captioner, sample_photos[0], num_captions=3, top_p=1.0
    )
    drawn = objective.draw(batch, 5)
    texts = [tokenizer.decode(row) for row in drawn["token_ids"].numpy()]
    cider = objective._cider
    for photo in range(3):
        image_id = int(batch["image_ids"][photo])
        scores = [
            cider.score(image_id, text)
            for text in texts[3 * photo : 3 * photo + 3]
        ]
        expected = [
            own - (sum(scores) - own) / (len(scores) - 1) for own in scores
        ]
        np.testing.assert_allclose(
            drawn["caption_weight"][3 * photo : 3 * photo + 3],
            expected,
            atol=1e-4,
        )


def test_best_caption_alone_is_kept_for_distillation(
    tiny_captioner, sample_photos, batch
):
    objective = make(
        tiny_captioner, sample_photos[0], num_captions=4, keep_best=True
    )
    weights = objective.draw(batch, 0)["caption_weight"].numpy().reshape(3, 4)
    assert (np.sort(weights, axis=1) == [0, 0, 0, 1]).all()


def test_captions_by_people_follow_the_drawn_ones(
    tiny_captioner, sample_photos, batch, tokenizer
):
    objective = make(
        tiny_captioner,
        sample_photos[0],
        num_captions=2,
        reference_weight=0.25,
    )
    drawn = objective.draw(batch, 0)
    rows = drawn["token_ids"].numpy().reshape(3, 3, -1)
    texts = [tokenizer.decode(row) for row in rows[:, 2]]
    assert texts == [tokenizer.decode(row) for row in batch["token_ids"]]
    weights = drawn["caption_weight"].numpy().reshape(3, 3)
    np.testing.assert_allclose(weights[:, 2], 0.25)
    np.testing.assert_array_equal(
        drawn["padding_mask"].numpy() == 1, rows.reshape(9, -1) != 0
    )


def test_each_drawn_caption_comes_once_for_each_masking(
    tiny_captioner, sample_photos, batch
):
    once, twice = (
        make(
            tiny_captioner,
            sample_photos[0],
            num_captions=2,
            maskings=maskings,
            reference_weight=0.25,
        ).draw(batch, 0)
        for maskings in (1, 2)
    )
    for name in ("token_ids", "padding_mask", "caption_weight"):
        np.testing.assert_array_equal(
            twice[name].numpy(), np.repeat(once[name].numpy(), 2, axis=0)
        )
    assert twice["images"].shape == once["images"].shape


def test_steps_draw_different_captions_and_the_same_again(
    tiny_captioner, sample_photos, batch
):
    objective = make(tiny_captioner, sample_photos[0])
    first = objective.draw(batch, 1)["token_ids"].numpy()
    again = objective.draw(batch, 1)["token_ids"].numpy()
    other = objective.draw(batch, 2)["token_ids"].numpy()
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


# === Runs ===


def train(photos, settings, folder, **options):
    keras.utils.set_random_seed(settings.optimization.seed)
    encoder = build_image_tower(settings)
    data = training.prepare_data(
        *photos,
        training.feature_source(settings, encoder),
        cache=folder / "cache",
    )
    return training.train_in_phases(
        data,
        settings,
        tokenizer=training.make_tokenizer(settings, photos[0]),
        image_tower=encoder,
        out=folder / "run",
        verbose=0,
        **options,
    )


@pytest.mark.parametrize("objective", ["cider", "distill"])
def test_run_by_drawn_captions_changes_the_weights(
    sample_photos, tiny_settings, tiny_captioner, tmp_path, objective
):
    settings = tiny_settings.replace(
        objective=objective, epochs=1, self_critical_samples=2, draw_passes=2
    )
    captioner = train(
        sample_photos, settings, tmp_path, start=tiny_captioner.model
    )
    assert captioner.model.objective is None
    moved = [
        np.abs(np.array(new) - np.array(old)).max()
        for new, old in zip(
            captioner.model.trainable_weights,
            tiny_captioner.model.trainable_weights,
            strict=True,
        )
    ]
    assert 0 < max(moved) < 0.1


def test_second_phase_follows_and_becomes_the_run_s_captioner(
    sample_photos, tiny_settings, tmp_path
):
    settings = tiny_settings.replace(
        epochs=1,
        cider_epochs=1,
        self_critical_samples=2,
        group_size=2,
        consensus=1.0,
        ema_momentum=0.9,
        drop_final_period=True,
        label_smoothing=0.1,
    )
    captioner = train(sample_photos, settings, tmp_path)
    assert captioner.settings.objective == "cider"
    paths = [photo.path for photo in sample_photos[1][:3]]
    expected = captioner.caption(paths)
    for folder in ("run/captioner", "run/cider/captioner"):
        again = Captioner.from_preset(tmp_path / folder)
        assert again.caption(paths) == expected
        assert again.calibration == captioner.calibration
    assert (tmp_path / "run/cider/history.csv").is_file()


def test_average_of_the_weights_is_what_is_saved(
    sample_photos, tiny_settings, tmp_path
):
    settings = tiny_settings.replace(ema_momentum=0.5, epochs=1)
    captioner = train(sample_photos, settings, tmp_path)
    optimizer = captioner.model.optimizer
    for weight, average in zip(
        captioner.model.trainable_weights,
        optimizer._model_variables_moving_average,
        strict=True,
    ):
        np.testing.assert_array_equal(np.array(weight), np.array(average))
    load = (
        "from bmt_keras.captioner import Captioner; "
        f"Captioner.from_preset({str(tmp_path / 'run/captioner')!r})"
    )
    subprocess.run([sys.executable, "-c", load], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_dim": 8}, "is of another shape: its "),
        ({"fusion_blocks": 2}, "weights, the settings ask for"),
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
