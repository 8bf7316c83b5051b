import numpy as np
import pytest

from bmt_keras.data.sharded_rows import ShardedRows

WHOLE = np.arange(24, dtype=np.float16).reshape(6, 2, 2)


@pytest.fixture
def rows():
    return ShardedRows([WHOLE[:1], WHOLE[1:1], WHOLE[1:4], WHOLE[4:]])


@pytest.mark.parametrize(
    "index",
    [
        0,
        3,
        -1,
        np.int64(4),
        slice(None),
        slice(5, 0, -2),
        slice(0, 0),
        [5, 0, 0, 3],
        [-2, 1],
        np.array([[0, 5], [4, 2]]),
        np.array([True, False, False, True, False, True]),
        np.array([], int),
    ],
)
def test_rows_are_those_of_one_array(rows, index):
    found = rows[index]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, WHOLE[index])
    assert found.shape == WHOLE[index].shape


def test_shape_type_and_length_are_those_of_one_array(rows):
    assert (rows.shape, rows.dtype) == ((6, 2, 2), np.float16)
    assert len(rows) == 6


def test_whole_is_an_array(rows):
    np.testing.assert_array_equal(np.asarray(rows), WHOLE)
    assert np.asarray(rows, np.float32).dtype == np.float32
    np.testing.assert_array_equal(
        np.roll(rows, 1, axis=0), np.roll(WHOLE, 1, 0)
    )
    with pytest.raises(ValueError, match="`copy` must not be False"):
        np.array(rows, copy=False)


def test_iteration_ends(rows):
    np.testing.assert_array_equal(list(rows), WHOLE)


@pytest.mark.parametrize("index", [6, -7, [0, 6], (0, 1)])
def test_what_is_no_row_is_refused(rows, index):
    with pytest.raises(IndexError):
        rows[index]
