import numpy as np
import pytest
import tensorflow as tf

from bmt_keras.data.feature_shards import (
    ShardLayout,
    check_shards,
    map_shard,
    write_shard,
)
from bmt_keras.errors import InputError

LAYOUT = ShardLayout((2, 3), np.dtype(np.float16))
IMAGE_IDS = [7, 2**40, 0, 3]
FEATURES = np.arange(24, dtype=np.float16).reshape(4, 2, 3) / 8
# Length and its checksum, image id, features, checksum.
LENGTH, ID, VALUE, CHECKSUM, RECORD = 0, 12, 20, 32, 36


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard.tfrecord"
    write_shard(path, zip(IMAGE_IDS, FEATURES, strict=True), LAYOUT)
    return path


def faults(*paths):
    return {path.name: fault for path, fault in check_shards(paths, LAYOUT)}


def test_rows_are_mapped_as_they_were_written(shard):
    rows = map_shard(shard, LAYOUT)
    assert isinstance(rows, np.memmap)
    assert rows["image_id"].tolist() == IMAGE_IDS
    assert rows["features"].dtype == np.float16
    np.testing.assert_array_equal(rows["features"], FEATURES)
    np.testing.assert_array_equal(
        rows["features"][[3, 0, 3]], FEATURES[[3, 0, 3]]
    )
    with pytest.raises(ValueError, match="read-only"):
        rows["features"][0] = 0


def test_shard_is_a_tfrecord_of_ids_and_raw_numbers(shard):
    records = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    assert [int.from_bytes(r[:8], "little") for r in records] == IMAGE_IDS
    values = [tf.io.decode_raw(r[8:], tf.float16) for r in records]
    np.testing.assert_array_equal(np.reshape(values, (4, 2, 3)), FEATURES)


def test_pixels_keep_their_type(tmp_path):
    layout = ShardLayout((2, 2, 3), np.dtype(np.uint8))
    pixels = np.arange(200, 212, dtype=np.uint8).reshape(2, 2, 3)
    write_shard(tmp_path / "a", [(1, pixels)], layout)
    rows = map_shard(tmp_path / "a", layout)
    assert rows["features"].dtype == np.uint8
    np.testing.assert_array_equal(rows["features"][0], pixels)
    assert list(check_shards([tmp_path / "a"], layout)) == [
        (tmp_path / "a", "")
    ]


def test_shard_without_rows_is_sound_and_empty(tmp_path):
    write_shard(tmp_path / "a", [], LAYOUT)
    assert map_shard(tmp_path / "a", LAYOUT)["features"].shape == (0, 2, 3)
    assert faults(tmp_path / "a") == {"a": ""}


def test_failure_leaves_no_file(tmp_path):
    def rows():
        yield 1, FEATURES[0]
        raise KeyError

    with pytest.raises(KeyError):
        write_shard(tmp_path / "a", rows(), LAYOUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [LENGTH, ID, VALUE, CHECKSUM])
def test_altered_byte_is_found(shard, place):
    assert faults(shard) == {"shard.tfrecord": ""}
    content = bytearray(shard.read_bytes())
    content[2 * RECORD + place] ^= 1
    shard.write_bytes(content)
    assert faults(shard)["shard.tfrecord"].startswith("corrupted record at ")


def test_truncated_shard_is_named(shard):
    shard.write_bytes(shard.read_bytes()[:-5])
    found = f"{4 * RECORD - 5} bytes, expected a multiple of {RECORD}"
    assert faults(shard) == {"shard.tfrecord": found}
    with pytest.raises(InputError) as error:
        map_shard(shard, LAYOUT)
    assert str(error.value).startswith(f"{shard}: expected a sound shard")
    assert found in str(error.value)


def test_missing_shard_is_named(tmp_path):
    assert faults(tmp_path / "gone") == {"gone": "no such file"}
    with pytest.raises(InputError, match=r"gone: .*no such file"):
        map_shard(tmp_path / "gone", LAYOUT)


def test_records_of_another_length_are_found(tmp_path):
    double = ShardLayout((2, 12), np.dtype(np.float16))
    write_shard(tmp_path / "a", [(1, np.zeros((2, 12)))], double)
    # As long as two records, but one.
    assert double.record.itemsize == 2 * RECORD
    assert faults(tmp_path / "a") == {"a": "1 records of another length"}


def test_each_of_many_shards_is_judged_by_itself(tmp_path):
    paths = [tmp_path / f"{number}" for number in range(7)]
    for path in paths:
        write_shard(path, [(1, FEATURES[0])], LAYOUT)
    for number in (2, 3, 6):
        content = bytearray(paths[number].read_bytes())
        content[VALUE] ^= 128
        paths[number].write_bytes(content)
    paths[4].unlink()
    found = faults(*paths)
    assert sorted(found) == [path.name for path in paths]
    assert sorted(n for n, fault in found.items() if fault) == list("2346")
