import numpy as np

from bmt_keras.training.masked_state_cache import MaskedStates, masked_token_row

WIDTH = 3


def make_tokens(captions):
    rows = np.zeros(len(captions), masked_token_row(WIDTH))
    rows["caption"] = captions
    rows["position"] = np.arange(len(rows))
    rows["label"] = np.arange(100, 100 + len(rows)) + captions
    rng = np.random.default_rng(len(rows))
    rows["state"] = rng.normal(size=(len(rows), WIDTH))
    return rows


def test_tokens_are_found_by_caption_over_shards():
    first, second = make_tokens([0, 1, 1]), make_tokens([4, 5, 5, 5])
    states = MaskedStates([first, second], num_captions=7)
    found = states.gather(np.array([5, 2, 1, 4]))
    values = found["text_states"]
    assert values.shape == (4, 3, WIDTH)
    np.testing.assert_array_equal(values[0], second["state"][1:])
    np.testing.assert_array_equal(values[2, :2], first["state"][1:])
    np.testing.assert_array_equal(values[3, 0], second["state"][0])
    # Caption 2 has nothing masked; the slots left over are zeros.
    assert not values[1].any()
    assert not values[2, 2].any()
    assert found["mask_positions"].tolist() == [0, 1, 2, 6, 7, 9]
    labels = np.concatenate([second["label"][1:], first["label"][1:]])
    assert found["labels"].tolist() == [*labels, second["label"][0]]
    # Where nothing is masked, one empty slot.
    found = states.gather(np.array([2, 3]))
    assert found["text_states"].shape == (2, 1, WIDTH)
    assert found["mask_positions"].size == found["labels"].size == 0
