import numpy as np
import pytest

from bmt_keras.data.features import ImageFeatures

MAX_LENGTH = 14
NUM_PHOTOS, CAPTIONS_EACH = 12, 3


# === A batch ===


def test_rows_are_padded_behind_their_tokens(make, tokenizer, take):
    for batch in take(make(), 9):
        ids, mask = batch["token_ids"], batch["padding_mask"]
        assert ids.dtype == mask.dtype == np.int32
        lengths = mask.sum(axis=1)
        np.testing.assert_array_equal(
            mask, np.arange(ids.shape[1]) < lengths[:, None]
        )
        assert (ids[mask == 0] == tokenizer.pad_token_id).all()
        assert (ids[:, 0] == tokenizer.cls_token_id).all()
        last = ids[np.arange(len(ids)), lengths - 1]
        assert (last == tokenizer.sep_token_id).all()


def test_bucket_ends_at_the_next_multiple_or_at_the_longest(make, take):
    seen = set()
    for batch in take(make(bucket_width=4), 12):
        bound = batch["token_ids"].shape[1]
        lengths = batch["padding_mask"].sum(axis=1)
        expected = np.minimum(-(-lengths // 4) * 4, MAX_LENGTH)
        assert (expected == bound).all()
        seen.add(bound)
    assert seen == {4, 8, 12, 14}


def test_every_caption_stands_beside_its_own_photo(
    make, photos, tokenizer, take, pairs_of
):
    batches = make()
    for batch in take(batches, batches.steps_per_epoch):
        for photo, ids in pairs_of(batch):
            known = tokenizer.encode(
                photos[photo].captions, sequence_length=MAX_LENGTH
            )
            assert list(ids) in known
        assert batch["image_embedding"].dtype == np.float32
        np.testing.assert_array_equal(
            batch["image_embedding"][:, 1], -batch["image_embedding"][:, 0]
        )


def test_pixels_come_as_whole_levels_in_float(make, take):
    pixels = np.full((NUM_PHOTOS, 2, 3, 3), 255, np.uint8)
    features = ImageFeatures(pixels, {100 + n: n for n in range(NUM_PHOTOS)})
    (batch,) = take(make(features=features, image_input="images"), 1)
    assert set(batch) == {"token_ids", "padding_mask", "images"}
    assert batch["images"].dtype == np.float32
    assert batch["images"].shape == (len(batch["token_ids"]), 2, 3, 3)
    assert (batch["images"] == 255).all()


def test_dataset_declares_its_shapes(make):
    spec = make().dataset().element_spec
    assert spec["image_embedding"].shape.as_list() == [None, 2]
    assert spec["token_ids"].shape.as_list() == [None, None]


# === An epoch ===


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_pair_occurs_once_an_epoch(
    make, photos, tokenizer, shuffle, take, pairs_of
):
    batches = make(shuffle=shuffle)
    expected = sorted(
        (photo, tuple(ids))
        for photo, each in enumerate(photos)
        for ids in tokenizer.encode(each.captions, sequence_length=MAX_LENGTH)
    )
    found = take(batches, 2 * batches.steps_per_epoch)
    for epoch in (0, 1):
        start = epoch * batches.steps_per_epoch
        rows = found[start : start + batches.steps_per_epoch]
        assert sorted(p for b in rows for p in pairs_of(b)) == expected
    assert len(batches) == NUM_PHOTOS * CAPTIONS_EACH == len(expected)


def test_batches_are_full_but_for_the_last_of_a_bucket(make):
    batches = make(batch_size=4)
    plan = batches.plan.of_epoch(0)
    assert len(plan) == batches.steps_per_epoch
    short = [len(members) for members in plan if len(members) < 4]
    assert max(map(len, plan)) == 4
    assert len(short) <= 4  # buckets


def test_few_shapes_occur(make, take):
    batches = make()
    steps = 3 * batches.steps_per_epoch
    shapes = {b["token_ids"].shape for b in take(batches, steps)}
    assert len({length for _, length in shapes}) == 4
    assert len(shapes) <= 8  # full and last batches of four buckets


def test_lengths_count_the_tokens_between_the_ends(make, photos):
    counts = [
        min(len(caption.split()), MAX_LENGTH - 2)
        for photo in photos
        for caption in photo.captions
    ]
    assert make().lengths.tolist() == counts


def test_photos_without_features_are_left_out(
    make, features, photos, take, pairs_of
):
    rows = {k: v for k, v in features.rows.items() if k != 103}
    batches = make(features=ImageFeatures(features.array, rows))
    assert len(batches) == (NUM_PHOTOS - 1) * CAPTIONS_EACH
    found = take(batches, batches.steps_per_epoch)
    shown = {photo for batch in found for photo, _ in pairs_of(batch)}
    assert shown == set(range(NUM_PHOTOS)) - {3}
