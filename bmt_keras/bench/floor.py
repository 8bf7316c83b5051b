"""What the machine can do at best: products of matrices, and bytes read."""

from collections.abc import Mapping

import tensorflow as tf

from bmt_keras.bench.case import Case

MATRICES, MEMORY = "matrices", "memory"
_SIDE = 2048
_FLOATS = 1 << 27  # 512 MB, more than caches hold
# Large enough that the start of the work takes no part of its time.
_GPU_SIDE, _GPU_FLOATS = 8192, 1 << 30


def accelerator_floor_cases() -> dict[str, Case]:
    """As `floor_cases`, in bfloat16 where there is a GPU."""
    if tf.config.list_physical_devices("GPU"):
        return floor_cases(side=_GPU_SIDE, floats=_GPU_FLOATS, dtype="bfloat16")
    return floor_cases()


def floor_cases(
    *, side: int = _SIDE, floats: int = _FLOATS, dtype: str = "float32"
) -> dict[str, Case]:
    """The cases that take turns with all others.

    Args:
        side: Rows and columns of the matrices.
        floats: Length of the vector that is read.
        dtype: Of the matrices.

    Returns:
        A product of matrices, whose items are operations, and the sum of a
        vector of float32, whose items are bytes.
    """
    left = tf.cast(tf.random.normal((side, side)), dtype)
    right = tf.cast(tf.random.normal((side, side)), dtype)
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
