"""From batches to a trained captioner."""

from bmt_keras.training.callbacks import ModelSummary
from bmt_keras.training.data import (
    TrainingData,
    feature_source,
    make_tokenizer,
    prepare_data,
)
from bmt_keras.training.phases import train_in_phases
from bmt_keras.training.precision import set_matmul_precision
from bmt_keras.training.pretraining import read_caption_texts, text_data
from bmt_keras.training.run import check_run_folder, train_captioner

__all__ = [
    "ModelSummary",
    "TrainingData",
    "check_run_folder",
    "feature_source",
    "make_tokenizer",
    "prepare_data",
    "read_caption_texts",
    "set_matmul_precision",
    "text_data",
    "train_captioner",
    "train_in_phases",
]
