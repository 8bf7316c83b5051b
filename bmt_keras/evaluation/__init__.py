"""Figures of captions and of the confidence that they come with.

Every function takes plain data: nothing here needs Keras, TensorFlow or a
model.
"""

from bmt_keras.evaluation.calibration import (
    ReliabilityBin,
    calibration_error,
    expected_calibration_error,
    reliability_bins,
)
from bmt_keras.evaluation.caption_scores import (
    evaluate_captions,
    score_captions,
    score_each_caption,
    share_true,
    shuffle_predictions,
)
from bmt_keras.evaluation.java_scores import score_with_java
from bmt_keras.evaluation.masked_tokens import masked_accuracy
from bmt_keras.evaluation.result_files import write_coco_results, write_metrics
from bmt_keras.evaluation.retrieval import retrieval_recall
from bmt_keras.evaluation.wording import measure_wording, share_novel

__all__ = [
    "ReliabilityBin",
    "calibration_error",
    "evaluate_captions",
    "expected_calibration_error",
    "masked_accuracy",
    "measure_wording",
    "reliability_bins",
    "retrieval_recall",
    "score_captions",
    "score_each_caption",
    "score_with_java",
    "share_novel",
    "share_true",
    "shuffle_predictions",
    "write_coco_results",
    "write_metrics",
]
