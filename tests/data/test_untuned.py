import tensorflow as tf

from bmt_keras.data.untuned import without_tuning


def test_nothing_tunes_the_dataset_and_the_rest_stays():
    options = tf.data.Options()
    options.deterministic = False
    dataset = tf.data.Dataset.range(5).map(lambda x: 2 * x).prefetch(2)
    untuned = without_tuning(dataset.with_options(options))
    assert untuned.options().autotune.enabled is False
    assert untuned.options().deterministic is False
    assert list(untuned.as_numpy_iterator()) == [0, 2, 4, 6, 8]
