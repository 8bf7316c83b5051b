"""Data sets that TensorFlow does not tune while they are read."""

import tensorflow as tf


def without_tuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps a data set's parallelism and buffers as they were set.

    None of its numbers may be left to `tf.data.AUTOTUNE`.
    """
    # A thread tunes them otherwise, after 10 ms, 20 ms, 40 ms and so on, up to
    # a minute. When the data set ends, TensorFlow waits for this thread, which
    # may sleep on until its time has come: 23 s of preparing took 41 s.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
