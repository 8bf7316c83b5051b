"""Times of cases that take turns, so that a busy machine slows all of them."""

import time
from collections.abc import Mapping

from bmt_keras.bench.case import Case


def take_turns(
    cases: Mapping[str, Case], *, rounds: int
) -> dict[str, list[float]]:
    """Runs all cases once in each round.

    Args:
        cases: Cases by name.
        rounds: Number of rounds; one more before them, which traces graphs and
            fills caches, is not counted.

    Returns:
        Seconds an item of each round, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case.run()
            taken = time.perf_counter() - start
            if number:
                seconds[name].append(taken / case.items)
    return seconds
