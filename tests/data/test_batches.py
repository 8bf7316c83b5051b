import itertools

import numpy as np
import pytest

from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.coco import Photo
from bmt_keras.data.photo_features import PhotoFeatures
from bmt_keras.data.shares import Replicas
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError

MAX_LENGTH = 14
NUM_PHOTOS, CAPTIONS_EACH = 12, 3


def words(photo, number):
    """A caption of 1 to 13 words: of 3 to 15 tokens, of which 14 are kept."""
    count = 1 + (5 * photo + 4 * number) % 13
    return " ".join(["a", f"p{photo}", f"n{number}", *"bcdefghijk"][:count])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    return [
        Photo(
            100 + photo,
            folder / f"{photo}.jpg",
            tuple(words(photo, number) for number in range(CAPTIONS_EACH)),
        )
        for photo in range(NUM_PHOTOS)
    ]


@pytest.fixture(scope="module")
def tokenizer(photos):
    return CaptionTokenizer.from_captions(
        caption for photo in photos for caption in photo.captions
    )


@pytest.fixture(scope="module")
def features(photos):
    """Photo 100 + n has the embedding [n, -n], its rows in reverse order."""
    numbers = np.arange(NUM_PHOTOS)[::-1]
    array = np.stack([numbers, -numbers], axis=1).astype(np.float16)
    return PhotoFeatures(array, {100 + n: r for r, n in enumerate(numbers)})


@pytest.fixture
def make(photos, features, tokenizer):
    def batches(**changes):
        options = {
            "photos": photos,
            "features": features,
            "tokenizer": tokenizer,
            "image_input": "image_embedding",
            "batch_size": 4,
            "max_length": MAX_LENGTH,
            **changes,
        }
        some = options.pop("photos", photos)
        return CaptionBatches(
            some, options.pop("features", features), **options
        )

    return batches


def take(batches, count, start_step=0):
    dataset = batches.dataset(start_step=start_step)
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def pairs_of(batch):
    """(photo's number, ids without padding) of each row."""
    return [
        (int(image[0]), tuple(ids[mask == 1].tolist()))
        for image, ids, mask in zip(
            batch["image_embedding"],
            batch["token_ids"],
            batch["padding_mask"],
            strict=True,
        )
    ]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


# === A batch ===


def test_rows_are_padded_behind_their_tokens(make, tokenizer):
    for batch in take(make(), 9):
        ids, mask = batch["token_ids"], batch["padding_mask"]
        assert ids.dtype == mask.dtype == np.int32
        lengths = mask.sum(axis=1)
        np.testing.assert_array_equal(
            mask, np.arange(ids.shape[1]) < lengths[:, None]
        )
        assert (ids[mask == 0] == tokenizer.pad_id).all()
        assert (ids[:, 0] == tokenizer.cls_id).all()
        last = ids[np.arange(len(ids)), lengths - 1]
        assert (last == tokenizer.sep_id).all()


def test_bucket_ends_at_the_next_multiple_or_at_the_longest(make):
    seen = set()
    for batch in take(make(bucket_width=4), 12):
        bound = batch["token_ids"].shape[1]
        lengths = batch["padding_mask"].sum(axis=1)
        expected = np.minimum(-(-lengths // 4) * 4, MAX_LENGTH)
        assert (expected == bound).all()
        seen.add(bound)
    assert seen == {4, 8, 12, 14}


def test_every_caption_stands_beside_its_own_photo(make, photos, tokenizer):
    batches = make()
    for batch in take(batches, batches.steps_per_epoch):
        for photo, ids in pairs_of(batch):
            known = tokenizer.encode(
                photos[photo].captions, max_length=MAX_LENGTH
            )
            assert list(ids) in known
        assert batch["image_embedding"].dtype == np.float32
        np.testing.assert_array_equal(
            batch["image_embedding"][:, 1], -batch["image_embedding"][:, 0]
        )


def test_pixels_come_as_whole_levels_in_float(make):
    pixels = np.full((NUM_PHOTOS, 2, 3, 3), 255, np.uint8)
    features = PhotoFeatures(pixels, {100 + n: n for n in range(NUM_PHOTOS)})
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
def test_every_pair_occurs_once_an_epoch(make, photos, tokenizer, shuffle):
    batches = make(shuffle=shuffle)
    expected = sorted(
        (photo, tuple(ids))
        for photo, each in enumerate(photos)
        for ids in tokenizer.encode(each.captions, max_length=MAX_LENGTH)
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


def test_few_shapes_occur(make):
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


def test_photos_without_features_are_left_out(make, features, photos):
    rows = {k: v for k, v in features.rows.items() if k != 103}
    batches = make(features=PhotoFeatures(features.array, rows))
    assert len(batches) == (NUM_PHOTOS - 1) * CAPTIONS_EACH
    found = take(batches, batches.steps_per_epoch)
    shown = {photo for batch in found for photo, _ in pairs_of(batch)}
    assert shown == set(range(NUM_PHOTOS)) - {3}


# === The order ===


def test_order_depends_on_the_seed_alone(make):
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


def test_order_without_shuffling_is_the_same_in_all_epochs(make):
    batches = make(shuffle=False)
    steps = batches.steps_per_epoch
    found = take(batches, 2 * steps)
    assert_same(found[:steps], found[steps:])


def test_any_step_is_where_a_resumed_run_goes_on(make):
    steps = make().steps_per_epoch
    whole = take(make(), 2 * steps + 3)
    for start in (1, steps - 1, steps, steps + 2, 2 * steps):
        resumed = take(make(), len(whole) - start, start_step=start)
        assert_same(resumed, whole[start:])


# === As the notebook: no buckets, a shuffle buffer, one caption a photo ===


def test_without_buckets_a_batch_is_padded_to_its_longest(make):
    batches = make(bucket_width=0)
    widths = set()
    for batch in take(batches, batches.steps_per_epoch):
        lengths = batch["padding_mask"].sum(axis=1)
        assert batch["token_ids"].shape[1] == lengths.max()
        widths.add(int(lengths.max()))
    assert batches.steps_per_epoch == NUM_PHOTOS * CAPTIONS_EACH // 4
    assert len(widths) > 1


def test_without_buckets_lengths_are_mixed(make):
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


def test_first_captions_alone_are_kept(make, photos, tokenizer):
    batches = make(captions_per_photo=1, bucket_width=0)
    assert len(batches) == NUM_PHOTOS
    found = {
        pair
        for batch in take(batches, batches.steps_per_epoch)
        for pair in pairs_of(batch)
    }
    first = tokenizer.encode(
        [photo.captions[0] for photo in photos], max_length=MAX_LENGTH
    )
    assert found == {(n, tuple(ids)) for n, ids in enumerate(first)}


# === Groups ===


def test_captions_of_a_photo_stay_together(make):
    batches = make(group_size=2, batch_size=4, bucket_width=0)
    seen = []
    for batch in take(batches, batches.steps_per_epoch):
        size = len(batch["token_ids"]) // len(batch["image_embedding"])
        assert size in (1, 2)
        assert len(batch["token_ids"]) <= 4
        images = np.repeat(batch["image_embedding"], size, axis=0)
        seen += pairs_of({**batch, "image_embedding": images})
    expected = []
    single = make(bucket_width=0)
    for batch in take(single, single.steps_per_epoch):
        expected += pairs_of(batch)
    assert sorted(seen) == sorted(expected)


def test_group_holds_captions_of_like_length(make, photos):
    lengths = [
        sorted(min(len(c.split()), MAX_LENGTH - 2) for c in p.captions)
        for p in photos
    ]
    batches = make(group_size=2, batch_size=2, bucket_width=0)
    for batch in take(batches, batches.steps_per_epoch):
        if len(batch["token_ids"]) == 2 * len(batch["image_embedding"]):
            photo = int(batch["image_embedding"][0, 0])
            found = (batch["padding_mask"].sum(axis=1) - 2).tolist()
            assert found == lengths[photo][:2]


def test_weights_and_image_ids_go_with_their_captions(make, photos):
    weights = {
        photo.image_id: [photo.image_id + i / 10 for i in range(CAPTIONS_EACH)]
        for photo in photos
    }
    batches = make(caption_weights=weights, with_image_ids=True)
    for batch in take(batches, 5):
        numbers = batch["image_embedding"][:, 0].astype(int) + 100
        np.testing.assert_array_equal(batch["image_ids"], numbers)
        np.testing.assert_array_equal(
            np.floor(batch["caption_weight"]), numbers
        )


def test_tokens_are_counted_without_the_frame(make, tokenizer):
    counts = make().count_tokens(tokenizer.vocabulary_size)
    assert counts[tokenizer.cls_id] == counts[tokenizer.sep_id] == 0
    assert counts.sum() == make().lengths.sum()
    first = tokenizer.encode(["a"])[0][1]
    assert counts[first] == NUM_PHOTOS * CAPTIONS_EACH


def test_share_of_captions_counts_a_caption_once(make, tokenizer):
    shares = make().share_of_captions(tokenizer.vocabulary_size)
    assert shares.dtype == np.float32
    assert shares[tokenizer.cls_id] == shares[tokenizer.sep_id] == 0
    held = [
        np.isin(np.arange(tokenizer.vocabulary_size), ids[1:-1])
        for ids in make().token_ids
    ]
    np.testing.assert_allclose(shares, np.mean(held, axis=0), rtol=1e-6)
    assert shares[tokenizer.encode(["a"])[0][1]] == 1


def test_half_of_the_photos_are_turned_and_others_in_each_epoch(
    make, photos, features
):
    rng = np.random.default_rng(0)
    grids = rng.random((NUM_PHOTOS, 2, 3, 4)).astype(np.float16)
    batches = make(
        features=PhotoFeatures(grids, features.rows),
        mirror=True,
        with_image_ids=True,
        captions_per_photo=1,
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


def test_photos_are_turned_alike_where_a_run_resumes(make, features):
    grids = np.arange(NUM_PHOTOS * 8).reshape(NUM_PHOTOS, 2, 2, 2)
    batches = make(
        features=PhotoFeatures(grids.astype(np.float16), features.rows),
        mirror=True,
    )
    assert_same(take(batches, 3, start_step=4), take(batches, 7)[4:])


# === Shares of replicas ===


@pytest.mark.parametrize("group_size", [1, 3])
def test_shares_hold_the_rows_of_the_batch_and_blanks(make, group_size):
    batches = make(batch_size=9, group_size=group_size)
    whole = take(batches, 8, start_step=2)
    both = Replicas(0, 2, 2)
    shares = batches.dataset(2, replicas=both).take(16).as_numpy_iterator()
    blanks = 0
    for batch in whole:
        parts = [next(shares), next(shares)]
        assert len({part["token_ids"].shape for part in parts}) == 1
        joined = {
            name: np.concatenate([part[name] for part in parts])
            for name in ("token_ids", "padding_mask", "rows")
        }
        real = joined["padding_mask"].any(axis=1)
        blanks += (~real).sum()
        for name in ("token_ids", "padding_mask"):
            np.testing.assert_array_equal(joined[name][real], batch[name])
        count = len(batch["token_ids"])
        assert joined["rows"][real].tolist() == list(range(count))
        assert [int(part["num_rows"]) for part in parts] == [count, count]
        images = np.concatenate([part["image_embedding"] for part in parts])
        np.testing.assert_array_equal(
            images[: len(batch["image_embedding"])], batch["image_embedding"]
        )
    assert blanks
