import json
import math

import numpy as np
import pytest

from bmt_keras.evaluation import (
    write_coco_results,
    write_metrics,
)


def test_results_file_is_in_coco_format(tmp_path):
    path = tmp_path / "results.json"
    write_coco_results(path, {np.int64(12): "a caf\u00e9", 3: ""})
    assert json.loads(path.read_text("utf-8")) == [
        {"image_id": 3, "caption": ""},
        {"image_id": 12, "caption": "a caf\u00e9"},
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_file_is_sorted_and_rounded(tmp_path):
    path = tmp_path / "metrics.json"
    write_metrics(
        path, {"b": 2 / 3, "photos": 5000, "a": np.float32(0.5), "c": 1e-9}
    )
    assert path.read_text() == (
        '{\n  "a": 0.5,\n  "b": 0.666667,\n  "c": 0.0,\n  "photos": 5000\n}\n'
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_metrics_that_are_not_finite_are_not_written(tmp_path, value):
    with pytest.raises(ValueError, match=r"finite.*cider_d="):
        write_metrics(tmp_path / "metrics.json", {"cider_d": value})
    assert list(tmp_path.iterdir()) == []
