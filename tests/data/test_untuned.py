import numpy as np
import tensorflow as tf

from bmt_keras.data.untuned import without_tuning


def test_rows_stay_as_they_are_and_nothing_tunes_them():
    dataset = tf.data.Dataset.range(5).map(lambda x: 2 * x).prefetch(2)
    untuned = without_tuning(dataset)
    assert untuned.options().autotune.enabled is False
    rows = np.array(list(untuned.as_numpy_iterator()))
    assert rows.tolist() == [0, 2, 4, 6, 8]


def test_other_options_stay():
    options = tf.data.Options()
    options.deterministic = False
    dataset = tf.data.Dataset.range(3).with_options(options)
    assert without_tuning(dataset).options().deterministic is False
