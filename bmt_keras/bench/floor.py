"""What the machine can do at best: products of matrices, and bytes read."""

from collections.abc import Mapping

import tensorflow as tf

from bmt_keras.bench.case import Case

MATRICES, MEMORY = "matrices", "memory"
_SIDE = 2048
_FLOATS = 1 << 27  # 512 MB, more than caches hold


def floor_cases(*, side: int = _SIDE, floats: int = _FLOATS) -> dict[str, Case]:
    """The cases that take turns with all others.

    Args:
        side: Rows and columns of the matrices.
        floats: Length of the vector that is read.

    Returns:
        A product of matrices in float32, whose items are operations, and the
        sum of a vector, whose items are bytes.
    """
    left = tf.random.normal((side, side))
    right = tf.random.normal((side, side))
    vector = tf.ones(floats)
    return {
        MATRICES: Case(
            lambda: tf.linalg.matmul(left, right)[0, 0].numpy(),
            items=2.0 * side**3,
        ),
        MEMORY: Case(lambda: tf.reduce_sum(vector).numpy(), items=4.0 * floats),
    }


def floor_seconds(case: Case, seconds: Mapping[str, float]) -> float:
    """The time that an item of a case takes where nothing ever waits.

    Args:
        case: The case.
        seconds: Seconds an operation (`MATRICES`) and a byte (`MEMORY`).

    Returns:
        Seconds; 0 where the case names neither operations nor bytes.
    """
    operations = case.operations * seconds[MATRICES]
    return max(operations, case.bytes * seconds[MEMORY]) / case.items
