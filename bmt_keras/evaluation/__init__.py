"""Captions against captions by people: scores, confidence and a report.

Nothing here imports Keras, TensorFlow or a model; `model_metrics` takes a
captioner that the caller has loaded.
"""

from bmt_keras.evaluation.cider_d import CiderD
from bmt_keras.evaluation.java_scores import score_with_java
from bmt_keras.evaluation.reliability import (
    ReliabilityBin,
    calibration_error,
    reliability_bins,
)
from bmt_keras.evaluation.results import read_results
from bmt_keras.evaluation.scores import (
    evaluate_captions,
    measure_wording,
    score_captions,
    score_each_caption,
    shuffle_predictions,
)
from bmt_keras.evaluation.words import split_caption

__all__ = [
    "CiderD",
    "ReliabilityBin",
    "calibration_error",
    "evaluate_captions",
    "measure_wording",
    "read_results",
    "reliability_bins",
    "score_captions",
    "score_each_caption",
    "score_with_java",
    "shuffle_predictions",
    "split_caption",
]
