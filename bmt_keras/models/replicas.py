"""Steps that several replicas of a model take together.

Keras' own step under `tf.distribute` clips the gradients of each replica
before it sums them, cannot accumulate gradients, and reduces the logs in a way
that fails on several workers (Keras issue 20585). Here each replica computes
the gradients of its share, their sums go to every replica, and what follows is
done once, outside the replicas, on the sums: clipping, decay, accumulation and
averages are those of one device with the whole batch.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def sum_over_replicas(values: Any) -> Any:
    """Sums what each replica has.

    Args:
        values: A tensor or a structure of tensors, of one shape everywhere.

    Returns:
        The sums; the values themselves where there is one replica.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, values)


def make_replicated_function(
    strategy: tf.distribute.Strategy,
    share: Callable[[Any], tuple[Any, ...]],
    combine: Callable[..., Any],
    *,
    run_eagerly: bool = False,
) -> Callable[[Any], Any]:
    """Makes what `fit` and `evaluate` call at each step.

    Args:
        strategy: Runs the replicas.
        share: From a replica's data to dense tensors that are to be summed.
        combine: From the sums to the logs; runs once.
        run_eagerly: Whether nothing is traced.

    Returns:
        A function of an iterator.
    """

    @tf.autograph.experimental.do_not_convert
    def compute(data: Any) -> Any:
        return sum_over_replicas(share(data))

    @tf.autograph.experimental.do_not_convert
    def step(iterator: Any) -> Any:
        summed = strategy.run(compute, args=(next(iterator),))
        # All replicas hold the same sums.
        return combine(
            *tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0],
                summed,
            )
        )

    return step if run_eagerly else tf.function(step, reduce_retracing=True)
