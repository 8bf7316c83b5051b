"""Rows of a batch that is empty, uneven or bad in part, in the graph."""

from collections.abc import Callable

import tensorflow as tf

from bmt_keras import contract

Outputs = dict[str, tf.Tensor]


def with_rows(
    run: Callable[..., Outputs],
    image_bytes: tf.Tensor,
    values: tf.Tensor | None = None,
    *,
    name: str = "",
) -> Outputs:
    """Runs a graph on one row at least: convolutions cannot do with none.

    Args:
        run: Takes photos, and values if there are any.
        image_bytes: string, (batch,).
        values: (batch,), what belongs to each photo; or None.
        name: What a client calls the values.

    Returns:
        The outputs of the rows that were given.

    Raises:
        tf.errors.InvalidArgumentError: There are more or fewer values than
            photos.
    """
    count = tf.size(image_bytes)
    missing = tf.cast(tf.equal(count, 0), tf.int32)
    inputs = [tf.concat([image_bytes, tf.fill([missing], "")], axis=0)]
    if values is not None:
        same = tf.debugging.assert_equal(
            tf.size(values),
            count,
            message=f"`{name}` must be one for each of "
            f"`{contract.IMAGE_BYTES}`.",
        )
        with tf.control_dependencies([same]):
            inputs.append(tf.pad(values, [[0, missing]]))
    outputs = run(*inputs)
    return {key: value[:count] for key, value in outputs.items()}


def blank_bad_rows(outputs: Outputs, errors: tf.Tensor) -> Outputs:
    """Empties the rows that have an error.

    Args:
        outputs: (batch, ...) each.
        errors: string, (batch,), empty where the row is good.

    Returns:
        The outputs, "" and 0 in the bad rows, and `error`.
    """
    good = tf.equal(errors, "")
    blanked = {
        name: tf.where(
            tf.reshape(good, (-1, *[1] * (value.shape.rank - 1))),
            value,
            tf.zeros_like(value),
        )
        for name, value in outputs.items()
    }
    return {**blanked, contract.ERROR: errors}


def first_error(*errors: tf.Tensor) -> tf.Tensor:
    """The first message of each row: string, (batch,), empty without one."""
    first = errors[-1]
    for error in reversed(errors[:-1]):
        first = tf.where(tf.equal(error, ""), first, error)
    return first
