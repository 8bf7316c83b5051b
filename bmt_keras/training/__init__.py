"""From batches to a trained captioner."""

from bmt_keras.training.callbacks import ModelSummary
from bmt_keras.training.data import (
    TrainingData,
    feature_source,
    make_tokenizer,
    prepare_data,
)
from bmt_keras.training.pretraining import read_caption_texts, text_data
from bmt_keras.training.replicas import check_replicas
from bmt_keras.training.run import check_run_folder, train_captioner
from bmt_keras.training.strategies import (
    check_strategy,
    chief_first,
    is_chief,
    open_strategy,
    wait_for_workers,
)

__all__ = [
    "ModelSummary",
    "TrainingData",
    "check_replicas",
    "check_run_folder",
    "check_strategy",
    "chief_first",
    "feature_source",
    "is_chief",
    "make_tokenizer",
    "open_strategy",
    "prepare_data",
    "read_caption_texts",
    "text_data",
    "train_captioner",
    "wait_for_workers",
]
