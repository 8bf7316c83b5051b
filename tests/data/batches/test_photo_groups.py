import numpy as np
import pytest

from bmt_keras.data.shares import Replicas

MAX_LENGTH = 14
NUM_PHOTOS, CAPTIONS_EACH = 12, 3


# === Groups ===


def test_captions_of_a_photo_stay_together(make, take, pairs_of):
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


def test_group_holds_captions_of_like_length(make, photos, take):
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


def test_weights_and_image_ids_go_with_their_captions(make, photos, take):
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
    assert counts[tokenizer.cls_token_id] == counts[tokenizer.sep_token_id] == 0
    assert counts.sum() == make().lengths.sum()
    first = tokenizer.encode(["a"])[0][1]
    assert counts[first] == NUM_PHOTOS * CAPTIONS_EACH


def test_share_of_captions_counts_a_caption_once(make, tokenizer):
    shares = make().share_of_captions(tokenizer.vocabulary_size)
    assert shares.dtype == np.float32
    assert shares[tokenizer.cls_token_id] == shares[tokenizer.sep_token_id] == 0
    held = [
        np.isin(np.arange(tokenizer.vocabulary_size), ids[1:-1])
        for ids in make().token_ids
    ]
    np.testing.assert_allclose(shares, np.mean(held, axis=0), rtol=1e-6)
    assert shares[tokenizer.encode(["a"])[0][1]] == 1


# === Shares of replicas ===


@pytest.mark.parametrize("group_size", [1, 3])
def test_shares_hold_the_rows_of_the_batch_and_blanks(make, group_size, take):
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
