"""Ratios computed by hand."""

import pytest

from bmt_keras.bench.case import Case, Row
from bmt_keras.bench.figures import compute_figures
from bmt_keras.bench.floor import MATRICES, MEMORY

CASES = {
    "step": Case(lambda: None, items=2, operations=8.0),
    "caching": Case(lambda: None, items=1, bytes=3.0),
    "notebook": Case(lambda: None, items=1),
}
TIMES = {
    MATRICES: [0.01, 0.02, 0.01],
    MEMORY: [0.1, 0.1, 0.1],
    "step": [1.0, 2.0, 1.0],
    "caching": [4.0, 4.0, 8.0],
    "notebook": [10.0, 30.0, 20.0],
}


def compute(**row):
    return compute_figures(Row("row", **row), CASES, TIMES)


def test_speed_is_the_median_of_the_rounds_ratios():
    figures = compute(parts={"step": 1}, reference={"notebook": 1}, at_least=12)
    assert figures.seconds == 1.0
    assert figures.reference_seconds == 20.0
    assert (figures.ratio_low, figures.ratio, figures.ratio_high) == (
        10.0,
        15.0,
        20.0,
    )
    assert figures.is_speed
    assert figures.is_met


def test_cost_is_the_other_way_round():
    figures = compute(
        parts={"notebook": 1}, reference={"step": 1}, at_most=14.9
    )
    assert figures.ratio == 15.0
    assert not figures.is_speed
    assert not figures.is_met


def test_parts_are_added_up_by_their_shares():
    figures = compute(
        parts={"step": 1, "caching": 0.25}, reference={"notebook": 2}
    )
    # 1 + 4 / 4, 2 + 4 / 4, 1 + 8 / 4
    assert figures.seconds == 3.0
    assert figures.reference == "2 x notebook"
    assert figures.ratio == pytest.approx(40 / 3)
    assert figures.is_met is None


def test_floor_is_of_operations_or_bytes_of_an_item():
    figures = compute(parts={"step": 1})
    assert figures.floor_seconds == pytest.approx(8 * 0.01 / 2)
    assert figures.over_floor == pytest.approx(25.0)
    figures = compute(parts={"step": 1, "caching": 2})
    assert figures.floor_seconds == pytest.approx(0.04 + 2 * 0.3)


def test_without_operations_there_is_no_floor():
    assert compute(parts={"notebook": 1}).over_floor is None
