import numpy as np
import pytest

from bmt_keras.data.masked_states import (
    MaskedStates,
    MaskedTokens,
    read_shard,
    write_shard,
)

WIDTH = 3


def make_tokens(captions):
    captions = np.array(captions, np.int32)
    number = len(captions)
    rng = np.random.default_rng(number)
    return MaskedTokens(
        captions=captions,
        image_ids=captions.astype(np.int64) * 10,
        positions=np.arange(number, dtype=np.int32),
        labels=np.arange(100, 100 + number, dtype=np.int32) + captions,
        states=rng.normal(size=(number, WIDTH)).astype(np.float32),
    )


@pytest.fixture
def stem(tmp_path):
    """A shard of captions 0 to 3, of which 2 has nothing to mask."""
    stem = tmp_path / "masking" / "shard"
    write_shard(stem, make_tokens([0, 1, 1, 3]), np.arange(4))
    return stem


def test_shard_reads_back_what_was_written(stem):
    tokens, written = read_shard(stem, np.arange(4), WIDTH), make_tokens
    for name, value in vars(written([0, 1, 1, 3])).items():
        np.testing.assert_array_equal(getattr(tokens, name), value)
    assert isinstance(tokens.states, np.memmap)
    assert sorted(path.name for path in stem.parent.iterdir()) == [
        "shard.npy",
        "shard.npz",
    ]


def test_unfinished_shard_is_none(stem):
    stem.with_name("shard.npz").unlink()
    assert read_shard(stem, np.arange(4), WIDTH) is None


def cut(content):
    return content[:-5]


def flip(content):
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize("name", ["shard.npy", "shard.npz"])
@pytest.mark.parametrize("damage", [cut, flip, lambda content: b"nothing"])
def test_damaged_shard_is_told(stem, name, damage):
    path = stem.with_name(name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="shard"):
        read_shard(stem, np.arange(4), WIDTH)


def test_shard_without_states_is_told(stem):
    stem.with_name("shard.npy").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        read_shard(stem, np.arange(4), WIDTH)


def test_shard_of_other_captions_or_width_is_told(stem):
    with pytest.raises(ValueError, match="is of other captions"):
        read_shard(stem, np.arange(5), WIDTH)
    with pytest.raises(ValueError, match=r"expected \(4, 5\) float32"):
        read_shard(stem, np.arange(4), 5)


def test_tokens_are_found_by_caption_over_shards():
    first, second = make_tokens([0, 1, 1]), make_tokens([4, 5, 5, 5])
    states = MaskedStates([first, second], num_captions=7)
    values, positions, labels = states.gather(np.array([5, 2, 1, 4]))
    assert values.shape == (4, 3, WIDTH)
    np.testing.assert_array_equal(values[0], second.states[1:])
    np.testing.assert_array_equal(values[2, :2], first.states[1:])
    np.testing.assert_array_equal(values[3, 0], second.states[0])
    # Caption 2 has nothing masked; the slots left over are zeros.
    assert not values[1].any()
    assert not values[2, 2].any()
    assert positions.tolist() == [0, 1, 2, 6, 7, 9]
    assert labels.tolist() == [
        *second.labels[1:],
        *first.labels[1:],
        second.labels[0],
    ]


def test_batch_without_masked_tokens_has_one_empty_slot():
    states = MaskedStates([make_tokens([0])], num_captions=3)
    values, positions, labels = states.gather(np.array([1, 2]))
    assert values.shape == (2, 1, WIDTH)
    assert (len(positions), len(labels)) == (0, 0)
