import numpy as np
import pytest

MAX_LENGTH = 14
NUM_PHOTOS, CAPTIONS_EACH = 12, 3


# === The order ===


def test_order_depends_on_the_seed_alone(make, take, pairs_of, assert_same):
    first, again = take(make(seed=3), 15), take(make(seed=3), 15)
    assert_same(first, again)
    other = take(make(seed=4), 15)
    assert list(map(pairs_of, first)) != list(map(pairs_of, other))


def test_order_differs_between_epochs(make):
    batches = make()
    orders = [
        [member for batch in batches.plan.of_epoch(epoch) for member in batch]
        for epoch in range(3)
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])


def test_order_without_shuffling_is_the_same_in_all_epochs(
    make, take, assert_same
):
    batches = make(shuffle=False)
    steps = batches.steps_per_epoch
    found = take(batches, 2 * steps)
    assert_same(found[:steps], found[steps:])


def test_any_step_is_where_a_resumed_run_goes_on(make, take, assert_same):
    steps = make().steps_per_epoch
    whole = take(make(), 2 * steps + 3)
    for start in (1, steps - 1, steps, steps + 2, 2 * steps):
        resumed = take(make(), len(whole) - start, start_step=start)
        assert_same(resumed, whole[start:])


# === As the notebook: no buckets, a shuffle buffer, one caption a photo ===


def test_without_buckets_a_batch_is_padded_to_its_longest(make, take):
    batches = make(bucket_width=0)
    widths = set()
    for batch in take(batches, batches.steps_per_epoch):
        lengths = batch["padding_mask"].sum(axis=1)
        assert batch["token_ids"].shape[1] == lengths.max()
        widths.add(int(lengths.max()))
    assert batches.steps_per_epoch == NUM_PHOTOS * CAPTIONS_EACH // 4
    assert len(widths) > 1


def test_without_buckets_lengths_are_mixed(make, take):
    batches = make(bucket_width=0, batch_size=36)
    (batch,) = take(batches, 1)
    assert len(set(batch["padding_mask"].sum(axis=1))) > 4


@pytest.mark.parametrize("bucket_width", [0, 4])
def test_every_caption_comes_once_an_epoch_from_a_buffer(make, bucket_width):
    batches = make(bucket_width=bucket_width, shuffle_buffer=3)
    plan = np.concatenate(batches.plan.of_epoch(0))
    np.testing.assert_array_equal(np.sort(plan), np.arange(len(batches)))


def test_buffer_brings_no_caption_early(make):
    """The n-th caption drawn is among the first n + buffer ones."""
    batches = make(bucket_width=0, shuffle_buffer=5)
    plans = [np.concatenate(batches.plan.of_epoch(e)) for e in range(20)]
    latest = np.minimum(np.arange(len(batches)) + 5, len(batches)) - 1
    for plan in plans:
        assert (plan <= latest).all()
    first = {plan[0] for plan in plans}
    assert first == {0, 1, 2, 3, 4}


def test_buffer_of_one_keeps_the_order(make):
    batches = make(bucket_width=0, shuffle_buffer=1)
    plan = np.concatenate(batches.plan.of_epoch(0))
    np.testing.assert_array_equal(plan, np.arange(len(batches)))


def test_first_captions_alone_are_kept(make, photos, tokenizer, take, pairs_of):
    batches = make(captions_per_image=1, bucket_width=0)
    assert len(batches) == NUM_PHOTOS
    found = {
        pair
        for batch in take(batches, batches.steps_per_epoch)
        for pair in pairs_of(batch)
    }
    first = tokenizer.encode(
        [photo.captions[0] for photo in photos], sequence_length=MAX_LENGTH
    )
    assert found == {(n, tuple(ids)) for n, ids in enumerate(first)}
