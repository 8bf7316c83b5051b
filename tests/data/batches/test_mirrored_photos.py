import numpy as np
import pytest

from bmt_keras.data.features import ImageFeatures
from bmt_keras.errors import InputError

NUM_PHOTOS = 12


def test_half_of_the_photos_are_turned_and_others_in_each_epoch(
    make, photos, features, take
):
    rng = np.random.default_rng(0)
    grids = rng.random((NUM_PHOTOS, 2, 3, 4)).astype(np.float16)
    batches = make(
        features=ImageFeatures(grids, features.rows),
        mirror=True,
        with_image_ids=True,
        captions_per_image=1,
        bucket_width=0,
    )
    turned = []
    for epoch in range(2):
        now = {}
        steps = batches.steps_per_epoch
        for batch in take(batches, steps, start_step=epoch * steps):
            for id_, grid in zip(
                batch["image_ids"], batch["image_embedding"], strict=True
            ):
                own = grids[features.rows[int(id_)]].astype(np.float32)
                now[int(id_)] = bool((grid != own).any())
                expected = own[:, ::-1] if now[int(id_)] else own
                np.testing.assert_array_equal(grid, expected)
        turned.append(now)
    assert all(0 < sum(now.values()) < NUM_PHOTOS for now in turned)
    assert turned[0] != turned[1]


def test_features_without_a_width_cannot_be_turned(make):
    with pytest.raises(InputError, match=r"`mirror` needs .*\(2,\)"):
        make(mirror=True)


def test_photos_are_turned_alike_where_a_run_resumes(
    make, features, take, assert_same
):
    grids = np.arange(NUM_PHOTOS * 8).reshape(NUM_PHOTOS, 2, 2, 2)
    batches = make(
        features=ImageFeatures(grids.astype(np.float16), features.rows),
        mirror=True,
    )
    assert_same(take(batches, 3, start_step=4), take(batches, 7)[4:])
