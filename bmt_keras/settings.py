"""Settings of a captioner and its training."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmt_keras.errors import InputError


def _setting(default: Any, text: str) -> Any:
    """A dataclass field that carries its own help text."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """All that shapes a captioner and its training.

    Each field is an option of `bmt train`; the resolved settings are saved as
    JSON beside the weights. The defaults are those of the preset `sample`.
    """

    # === Image side ===
    image_model: str = _setting(
        "SmallCNN", "SmallCNN, or the name of a model of keras.applications."
    )
    image_layer: str = _setting(
        "", "Layer whose output is the image embedding; empty for the last."
    )
    image_weights: str = _setting(
        "random", "File of weights, 'imagenet', or 'random'."
    )
    image_height: int = _setting(64, "Height of the resized photo in pixels.")
    image_width: int = _setting(64, "Width of the resized photo in pixels.")
    train_image_model: bool = _setting(
        True, "Train the image model along, instead of embedding photos once."
    )

    # === Text side ===
    vocabulary: str = _setting(
        "", "SentencePiece model; empty makes a vocabulary of whole words."
    )
    text_weights: str = _setting(
        "random", "Preset or folder of a pretrained ALBERT, or 'random'."
    )
    train_text_model: bool = _setting(True, "Train ALBERT along.")
    num_layers: int = _setting(2, "ALBERT's layers.")
    num_heads: int = _setting(4, "ALBERT's attention heads.")
    embedding_dim: int = _setting(64, "Width of ALBERT's token embedding.")
    hidden_dim: int = _setting(128, "Width of ALBERT's states.")
    intermediate_dim: int = _setting(512, "Width of ALBERT's feed-forward.")
    text_dropout: float = _setting(0.0, "ALBERT's dropout.")
    max_length: int = _setting(
        24, "Longest sequence in tokens, [CLS] and [SEP] included."
    )

    max_positions: int = _setting(
        64, "Positions that ALBERT has embeddings for, at least max_length."
    )

    # === Fusion ===
    fusion: str = _setting("cross_attention", "'cross_attention' or 'concat'.")
    fusion_blocks: int = _setting(2, "Blocks of cross-attention.")
    fusion_heads: int = _setting(4, "Heads of cross-attention.")
    fusion_dropout: float = _setting(0.0, "Dropout in the fusion.")
    predict_length: bool = _setting(
        True, "Predict a caption's length from its photo."
    )

    # === Training ===
    mask_rate: float = _setting(
        0.0, "Share of masked tokens; 0 draws it from U(0,1] for each caption."
    )
    label_smoothing: float = _setting(0.0, "Label smoothing of the loss.")
    length_loss_weight: float = _setting(0.1, "Weight of the length's loss.")
    epochs: int = _setting(10, "Passes over the training captions.")
    batch_size: int = _setting(64, "Captions in a batch.")
    learning_rate: float = _setting(1e-3, "Adam's (peak) learning rate.")
    schedule: str = _setting("cosine", "'constant' or 'cosine'.")
    warmup_share: float = _setting(
        0.05, "Share of the steps in which the rate rises (cosine)."
    )
    weight_decay: float = _setting(0.0, "Decoupled weight decay.")
    adam_epsilon: float = _setting(1e-7, "Adam's epsilon.")
    clipnorm: float = _setting(1.0, "Largest norm of a variable's gradient.")
    seed: int = _setting(0, "Seed of weights, order and masks.")

    # === Decoding ===
    passes: int = _setting(6, "Parallel passes that write a caption.")
    length_candidates: int = _setting(3, "Candidate lengths side by side.")

    def __post_init__(self) -> None:
        """Checks the fields that only take certain values."""
        _check_choice("fusion", self.fusion, ("cross_attention", "concat"))
        _check_choice("schedule", self.schedule, ("constant", "cosine"))
        for name in ("mask_rate", "text_dropout", "fusion_dropout"):
            _check_range(name, getattr(self, name), 0.0, 1.0)
        for name in (
            "image_height",
            "image_width",
            "epochs",
            "batch_size",
            "passes",
            "length_candidates",
        ):
            if getattr(self, name) < 1:
                raise InputError(
                    f"`{name}` must be at least 1. Received: "
                    f"{name}={getattr(self, name)}."
                )
        if self.max_length < 3:
            raise InputError(
                "`max_length` must leave room for one token beside [CLS] and "
                f"[SEP], so be at least 3. Received: {self.max_length}."
            )

        if self.max_positions < self.max_length:
            raise InputError(
                "`max_positions` must be at least `max_length`. Received: "
                f"max_positions={self.max_positions}, "
                f"max_length={self.max_length}."
            )

    def save(self, path: str | Path) -> None:
        """Writes the settings as JSON."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        Path(path).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Settings":
        """Reads settings that `save` wrote.

        Raises:
            InputError: The file is missing, no JSON, or has other fields.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**content)
        except (OSError, json.JSONDecodeError, TypeError) as err:
            raise InputError(
                f"{path}: expected saved settings, found something else: {err}."
            ) from err


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(
            f"`{name}` must be one of {', '.join(choices)}. Received: {value}."
        )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(
            f"`{name}` must be in [{low}, {high}]. Received: {value}."
        )
