"""What the replicas of a model read of a batch."""

import numpy as np
import pytest

from bmt_keras.data.batches import PlannedBatch, Replicas


def plan(num_groups, group_size):
    captions, groups = np.arange(num_groups * group_size), np.arange(num_groups)
    return PlannedBatch(3, captions + 50, groups + 10, groups % 2 == 0, 8)


@pytest.mark.parametrize("group_size", [1, 3])
@pytest.mark.parametrize(
    ("num_groups", "total"), [(4, 2), (5, 2), (1, 2), (7, 3), (5, 4)]
)
def test_shares_are_alike_and_together_the_batch(num_groups, group_size, total):
    planned = plan(num_groups, group_size)
    shares = list(Replicas(0, total, total).split(planned))
    assert len(shares) == total
    assert len({len(each.captions) for each in shares}) == 1
    captions = np.concatenate([each.captions for each in shares])
    rows = np.concatenate([each.rows for each in shares])
    real = captions >= 0  # the others are blank
    assert captions[real].tolist() == planned.captions.tolist()
    assert rows[real].tolist() == list(range(len(planned.captions)))
    for each in shares:
        assert each.num_rows == len(planned.captions)
        # A caption stands with its image.
        own = each.captions.reshape(len(each.image_rows), group_size)
        images = np.where(own < 0, 0, (own - 50) // group_size + 10)
        np.testing.assert_array_equal(
            images, np.where(own < 0, 0, each.image_rows[:, None])
        )
        # A blank one does with an image that is there.
        assert np.isin(each.image_rows, planned.image_rows).all()
        np.testing.assert_array_equal(
            each.is_mirrored, each.image_rows % 2 == 0
        )


def test_processes_read_for_their_own_replicas():
    planned = plan(8, 1)
    for first, expected in (
        (0, [[50, 51], [52, 53]]),
        (2, [[54, 55], [56, 57]]),
    ):
        found = Replicas(first, 2, 4).split(planned)
        assert [each.captions.tolist() for each in found] == expected
