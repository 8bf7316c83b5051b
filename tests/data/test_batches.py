"""Batches of captions that name their image and number."""

import itertools

import numpy as np
import pytest

from bmt_keras.data.batches import CaptionBatches, Replicas
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.features import ImageFeatures
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError

LENGTH = 14
NUM_IMAGES, CAPTIONS_EACH = 12, 3


def words(image, number):
    """A caption of 1 to 13 words: of 3 to 15 tokens, of which 14 are kept."""
    count = 1 + (5 * image + 4 * number) % 13
    return " ".join(["a", f"p{image}", f"n{number}", *"bcdefghijk"][:count])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    return [
        CaptionedImage(
            100 + image,
            folder / f"{image}.jpg",
            tuple(words(image, number) for number in range(CAPTIONS_EACH)),
        )
        for image in range(NUM_IMAGES)
    ]


@pytest.fixture(scope="module")
def tokenizer(images):
    return CaptionTokenizer.from_captions(
        caption for image in images for caption in image.captions
    )


@pytest.fixture(scope="module")
def features(images):
    """Image 100 + n has the embedding [n, -n], its rows in reverse order."""
    numbers = np.arange(NUM_IMAGES)[::-1]
    array = np.stack([numbers, -numbers], axis=1).astype(np.float16)
    return ImageFeatures(array, {100 + n: r for r, n in enumerate(numbers)})


@pytest.fixture
def make(images, features, tokenizer):
    def make(features=features, **changes):
        options = {
            "tokenizer": tokenizer,
            "image_input": "image_embedding",
            "batch_size": 4,
            "sequence_length": LENGTH,
            **changes,
        }
        return CaptionBatches(images, features, **options)

    return make


@pytest.fixture(scope="module")
def all_pairs(images, tokenizer):
    """(image's number, token ids) of each caption."""
    return sorted(
        (image, tuple(ids))
        for image, each in enumerate(images)
        for ids in tokenizer.encode(each.captions, sequence_length=LENGTH)
    )


def take(batches, count=None, start_step=0):
    dataset = batches.dataset(start_step=start_step).as_numpy_iterator()
    return list(itertools.islice(dataset, count or batches.steps_per_epoch))


def plan_of(batches, epoch=0):
    """The captions of each batch of an epoch."""
    steps = batches.steps_per_epoch
    plan = batches.plan(epoch * steps)
    return [planned.captions for planned in itertools.islice(plan, steps)]


def lengths_of(batch):
    return batch["padding_mask"].sum(axis=1)


def pairs_of(*batches):
    """(image's number, ids without padding) of each row."""
    pairs = []
    for batch in batches:
        size = len(batch["token_ids"]) // len(batch["image_embedding"])
        numbers = np.repeat(batch["image_embedding"][:, 0], size)
        rows = zip(
            numbers, batch["token_ids"], batch["padding_mask"], strict=True
        )
        pairs += [(int(n), tuple(ids[mask == 1])) for n, ids, mask in rows]
    return pairs


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


# === A batch ===


def test_rows_are_padded_behind_their_tokens(make, tokenizer):
    for batch in take(make()):
        ids, mask = batch["token_ids"], batch["padding_mask"]
        assert ids.dtype == mask.dtype == np.int32
        lengths = lengths_of(batch)
        np.testing.assert_array_equal(
            mask, np.arange(ids.shape[1]) < lengths[:, None]
        )
        assert (ids[mask == 0] == tokenizer.pad_token_id).all()
        assert (ids[:, 0] == tokenizer.cls_token_id).all()
        last = ids[np.arange(len(ids)), lengths - 1]
        assert (last == tokenizer.sep_token_id).all()


def test_few_shapes_occur_of_full_batches_and_bounds_of_buckets(make):
    batches = make(bucket_width=4)
    plan = plan_of(batches)
    assert sum(len(captions) < 4 for captions in plan) <= 4  # a bucket's last
    shapes = set()
    for batch in take(batches, 3 * batches.steps_per_epoch):
        count, bound = batch["token_ids"].shape
        expected = np.minimum(-(-lengths_of(batch) // 4) * 4, LENGTH)
        assert (expected == bound).all()
        shapes.add((count, bound))
    assert {bound for _, bound in shapes} == {4, 8, 12, 14}
    assert len(shapes) <= 8
    assert max(count for count, _ in shapes) == 4


def test_features_come_in_float32(make):
    spec = make().dataset().element_spec
    assert spec["image_embedding"].shape.as_list() == [None, 2]
    assert spec["token_ids"].shape.as_list() == [None, None]
    for batch in take(make()):
        embedding = batch["image_embedding"]
        assert embedding.dtype == np.float32
        np.testing.assert_array_equal(embedding[:, 1], -embedding[:, 0])


def test_pixels_come_as_whole_levels_in_float(make):
    pixels = np.full((NUM_IMAGES, 2, 3, 3), 255, np.uint8)
    features = ImageFeatures(pixels, {100 + n: n for n in range(NUM_IMAGES)})
    (batch,) = take(make(features, image_input="images"), 1)
    assert set(batch) == {"token_ids", "padding_mask", "images"}
    assert batch["images"].dtype == np.float32
    assert batch["images"].shape == (len(batch["token_ids"]), 2, 3, 3)
    assert (batch["images"] == 255).all()


# === An epoch ===


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_caption_comes_once_an_epoch_with_its_image(
    make, all_pairs, shuffle
):
    batches = make(shuffle=shuffle)
    first, second = (
        take(batches, start_step=epoch * batches.steps_per_epoch)
        for epoch in (0, 1)
    )
    assert sorted(pairs_of(*first)) == sorted(pairs_of(*second)) == all_pairs
    assert (pairs_of(*first) == pairs_of(*second)) is not shuffle
    assert len(batches) == NUM_IMAGES * CAPTIONS_EACH == len(all_pairs)


def test_images_without_features_are_left_out(make, features):
    rows = {k: v for k, v in features.rows.items() if k != 103}
    batches = make(ImageFeatures(features.array, rows))
    assert len(batches) == (NUM_IMAGES - 1) * CAPTIONS_EACH
    shown = {image for image, _ in pairs_of(*take(batches))}
    assert shown == set(range(NUM_IMAGES)) - {3}


def test_first_captions_alone_are_kept(make, images, tokenizer):
    batches = make(captions_per_image=1, bucket_width=0)
    first = tokenizer.encode(
        [image.captions[0] for image in images], sequence_length=LENGTH
    )
    expected = [(n, tuple(ids)) for n, ids in enumerate(first)]
    assert sorted(pairs_of(*take(batches))) == expected
    assert batches.caption_image_ids.tolist() == [100 + n for n, _ in expected]


# === The order ===


def test_order_depends_on_the_seed_alone(make):
    first, again = take(make(seed=3), 15), take(make(seed=3), 15)
    assert_same(first, again)
    assert pairs_of(*first) != pairs_of(*take(make(seed=4), 15))


def test_any_step_is_where_a_resumed_run_goes_on(make):
    steps = make().steps_per_epoch
    whole = take(make(), 2 * steps + 3)
    for start in (1, steps - 1, steps, steps + 2, 2 * steps):
        resumed = take(make(), len(whole) - start, start_step=start)
        assert_same(resumed, whole[start:])


# === As the notebook: no buckets, a shuffle buffer ===


def test_without_buckets_lengths_are_mixed_and_padded_to_the_longest(make):
    batches = make(bucket_width=0)
    widths = set()
    for batch in take(batches):
        assert batch["token_ids"].shape[1] == lengths_of(batch).max()
        widths.add(batch["token_ids"].shape[1])
    assert batches.steps_per_epoch == NUM_IMAGES * CAPTIONS_EACH // 4
    assert len(widths) > 1
    (batch,) = take(make(bucket_width=0, batch_size=36))
    assert len(set(lengths_of(batch))) > 4


@pytest.mark.parametrize("bucket_width", [0, 4])
def test_every_caption_comes_once_an_epoch_from_a_buffer(make, bucket_width):
    batches = make(bucket_width=bucket_width, shuffle_buffer=3)
    plan = np.concatenate(plan_of(batches))
    np.testing.assert_array_equal(np.sort(plan), np.arange(len(batches)))


def test_buffer_brings_no_caption_early(make):
    """The n-th caption drawn is among the first n + buffer ones."""
    batches = make(bucket_width=0, shuffle_buffer=5)
    plans = [np.concatenate(plan_of(batches, e)) for e in range(20)]
    latest = np.minimum(np.arange(len(batches)) + 5, len(batches)) - 1
    for plan in plans:
        assert (plan <= latest).all()
    assert {plan[0] for plan in plans} == {0, 1, 2, 3, 4}
    batches = make(bucket_width=0, shuffle_buffer=1)
    plan = np.concatenate(plan_of(batches))
    np.testing.assert_array_equal(plan, np.arange(len(batches)))


# === Mirrored images ===


def test_half_of_the_images_are_mirrored_and_others_in_each_epoch(make):
    rng = np.random.default_rng(0)
    grids = rng.random((NUM_IMAGES, 2, 3, 4)).astype(np.float16)
    grids[:, 0, :, 0] = np.arange(NUM_IMAGES)[:, None]  # tells the image
    rows = {100 + n: n for n in range(NUM_IMAGES)}
    batches = make(
        ImageFeatures(grids, rows),
        mirror=True,
        captions_per_image=1,
        bucket_width=0,
    )
    mirrored = np.zeros((2, NUM_IMAGES), bool)
    for epoch, now in enumerate(mirrored):
        start = epoch * batches.steps_per_epoch
        for batch in take(batches, start_step=start):
            for grid in batch["image_embedding"]:
                number = int(grid[0, 0, 0])
                own = grids[number].astype(np.float32)
                now[number] = (grid != own).any()
                expected = own[:, ::-1] if now[number] else own
                np.testing.assert_array_equal(grid, expected)
        assert 0 < now.sum() < NUM_IMAGES
    assert (mirrored[0] != mirrored[1]).any()
    assert_same(take(batches, 3, start_step=4), take(batches, 7)[4:])


def test_features_without_a_width_cannot_be_mirrored(make):
    with pytest.raises(InputError, match=r"`mirror` needs .*\(2,\)"):
        make(mirror=True)


# === Groups ===


def test_captions_of_like_length_of_an_image_stay_together(
    make, images, all_pairs
):
    found = take(make(group_size=2, bucket_width=0))
    for batch in found:
        size = len(batch["token_ids"]) // len(batch["image_embedding"])
        assert size in (1, 2)
        assert len(batch["token_ids"]) <= 4
        if size == 2:
            image = images[int(batch["image_embedding"][0, 0])]
            lengths = sorted(len(c.split()) for c in image.captions)[:2]
            expected = [min(length, LENGTH - 2) for length in lengths]
            assert (lengths_of(batch)[:2] - 2).tolist() == expected
    assert sorted(pairs_of(*found)) == all_pairs


# === Statistics ===


def test_tokens_are_counted_without_the_ends(make, images, tokenizer):
    batches, size = make(), tokenizer.vocabulary_size
    lengths = [
        min(len(caption.split()), LENGTH - 2)
        for image in images
        for caption in image.captions
    ]
    assert batches.lengths.tolist() == lengths
    counts, shares = batches.count_tokens(size), batches.share_of_captions(size)
    ends = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert not counts[ends].any()
    assert not shares[ends].any()
    assert counts.sum() == sum(lengths)
    assert counts[tokenizer.encode(["a"])[0][1]] == len(batches)
    held = [np.isin(np.arange(size), ids[1:-1]) for ids in batches.token_ids]
    np.testing.assert_allclose(shares, np.mean(held, axis=0), rtol=1e-6)
    assert shares.dtype == np.float32


# === Shares of replicas ===


@pytest.mark.parametrize("group_size", [1, 3])
def test_shares_hold_the_rows_of_the_batch_and_blanks(make, group_size):
    batches = make(batch_size=9, group_size=group_size)
    shares = batches.dataset(2, replicas=Replicas(0, 2, 2)).as_numpy_iterator()
    blanks = 0
    for batch in take(batches, 8, start_step=2):
        parts = [next(shares), next(shares)]
        assert len({part["token_ids"].shape for part in parts}) == 1
        count = len(batch["token_ids"])
        assert [int(part.pop("num_rows")) for part in parts] == [count, count]
        joined = {
            name: np.concatenate([part[name] for part in parts])
            for name in parts[0]
        }
        real = joined["padding_mask"].any(axis=1)
        blanks += (~real).sum()
        for name in ("token_ids", "padding_mask"):
            np.testing.assert_array_equal(joined[name][real], batch[name])
        assert joined["rows"][real].tolist() == list(range(count))
        embedding = batch["image_embedding"]
        np.testing.assert_array_equal(
            joined["image_embedding"][: len(embedding)], embedding
        )
    assert blanks
