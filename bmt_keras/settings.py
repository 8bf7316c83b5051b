"""Settings of a captioner and its training."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmt_keras.atomic import write_atomically
from bmt_keras.errors import InputError
from bmt_keras.settings_rules import check_settings


def _setting(default: Any, text: str, *, may_change: bool = False) -> Any:
    """A dataclass field that carries its own help text.

    A field that may change does not shape what a run has learnt so far, so
    that a run goes on with another value.
    """
    return dataclasses.field(
        default=default, metadata={"help": text, "may_change": may_change}
    )


@dataclass(frozen=True)
class Settings:
    """All that shapes a captioner and its training.

    Each field is an option of `bmt train`; the resolved settings are saved as
    JSON beside the weights. The defaults are those of the preset `sample`.
    """

    # === Image side ===
    image_model: str = _setting(
        "SmallCNN", "SmallCNN, or a model of keras.applications."
    )
    image_layer: str = _setting(
        "", "Layer whose output is the image embedding; empty for the last."
    )
    image_pooling: int = _setting(
        1,
        "Average so many by so many cells of the image embedding "
        "(keras.applications).",
    )
    image_weights: str = _setting(
        "random", "File of weights, 'imagenet', or 'random'."
    )
    image_height: int = _setting(64, "Height of the resized photo in pixels.")
    image_width: int = _setting(64, "Width of the resized photo in pixels.")
    train_image_model: bool = _setting(
        True, "Train the image model along, instead of embedding photos once."
    )
    image_precision: str = _setting(
        "float32",
        "Precision in which the frozen image model embeds photos ahead of "
        "training on a CPU: 'float32', or 'bfloat16', faster where the "
        "processor has units for it.",
    )

    # === Text side ===
    vocabulary: str = _setting(
        "",
        "SentencePiece model; empty takes that of --text-weights, or makes a "
        "vocabulary of whole words.",
    )
    prune_vocabulary: bool = _setting(
        False,
        "Drop the vocabulary's pieces that no training caption uses "
        "(--text-weights random).",
    )
    min_token_count: int = _setting(
        1, "Drop also those used fewer times (--prune-vocabulary)."
    )
    text_weights: str = _setting(
        "random",
        "Folder of a pretrained ALBERT, 'hf://organisation/name', a KerasHub "
        "preset, or 'random'.",
    )
    pretrained_head: bool = _setting(
        False, "Start from the masked-LM head of --text-weights, too."
    )
    train_text_model: bool = _setting(True, "Train ALBERT along.")
    lora_rank: int = _setting(
        0,
        "Train changes of this rank to ALBERT's queries and values alone "
        "(LoRA); 0 trains all of ALBERT.",
    )
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
    image_blocks: int = _setting(
        0,
        "Blocks in which the photo's cells attend to each other "
        "(cross_attention).",
    )
    image_dropout: float = _setting(
        0.0,
        "Share of the image embedding's channels that training drops "
        "(cross_attention).",
    )
    predict_length: bool = _setting(
        True, "Predict a caption's length from its photo."
    )
    concept_units: int = _setting(
        0,
        "Hidden units of a head that finds in the photo which tokens its "
        "captions hold (cross_attention); 0 for no such head.",
    )
    concept_weight: float = _setting(
        0.35,
        "Weight of what that head finds beside the language model.",
        may_change=True,
    )

    # === Batches ===
    captions_per_photo: int = _setting(
        0, "Train on the first N captions of each photo; 0 for all."
    )
    drop_final_period: bool = _setting(
        False, "Leave out the full stop at a caption's end."
    )
    group_size: int = _setting(
        1,
        "Captions of a photo that share a batch, and one reading of the photo "
        "(cross_attention).",
    )
    batch_size: int = _setting(64, "Captions in a batch, drawn ones too.")
    bucket_width: int = _setting(
        4,
        "Batches hold captions of like length, in steps of so many tokens; 0 "
        "mixes lengths and pads to a batch's longest.",
    )
    mirror: bool = _setting(
        False,
        "Train on half of the photos turned left to right, others in each "
        "epoch.",
    )
    shuffle_buffer: int = _setting(
        0, "Draw captions from a buffer of so many; 0 shuffles all of them."
    )

    # === Training ===
    objective: str = _setting(
        "tokens",
        "'tokens' fills masks in people's captions; 'cider' learns from the "
        "captioner's own draws, weighed by CIDEr-D; 'distill' from the best "
        "draw of each photo.",
    )
    draws: int = _setting(
        5, "Captions drawn of each photo ('cider', 'distill')."
    )
    draw_passes: int = _setting(4, "Passes that draw a caption.")
    draw_maskings: int = _setting(
        1, "Maskings of each drawn caption that one step learns from."
    )
    draw_top_p: float = _setting(
        0.9, "Draw words among the likeliest that have this probability."
    )
    reference_weight: float = _setting(
        0.1, "Weight of people's captions beside the drawn ones."
    )
    cider_epochs: int = _setting(
        0,
        "Epochs with the objective 'cider' after all others.",
        may_change=True,
    )
    cider_learning_rate: float = _setting(
        2e-4, "Adam's peak learning rate in those epochs.", may_change=True
    )
    mask_rate: float = _setting(
        0.0, "Share of masked tokens; 0 draws it from U(0,1] for each caption."
    )
    cached_maskings: int = _setting(
        0,
        "Mask each caption so many times ahead, run the frozen ALBERT once for "
        "each masking, and learn from the states on disk (concat, "
        "--no-train-text-model); 0 runs ALBERT at every step.",
    )
    redraw_epochs: int = _setting(
        0, "Epochs after which cached maskings are drawn anew; 0 for never."
    )
    label_smoothing: float = _setting(0.0, "Label smoothing of the loss.")
    consensus: float = _setting(
        0.0,
        "Weigh each caption by exp(so much times its CIDEr-D against the "
        "photo's other captions); 0 weighs all alike.",
    )
    length_loss_weight: float = _setting(0.1, "Weight of the length's loss.")
    rdrop_weight: float = _setting(
        0.0,
        "R-Drop: read each batch twice, with other dropout, and weigh the "
        "divergence of the two answers by so much; 0 reads it once.",
    )
    epochs: int = _setting(4, "Epochs.")
    steps_per_epoch: int = _setting(
        0, "Batches in an epoch; 0 for all training captions once."
    )
    gradient_accumulation_steps: int = _setting(
        1, "Batches whose mean gradient makes one update."
    )
    learning_rate: float = _setting(1e-3, "Adam's (peak) learning rate.")
    schedule: str = _setting("cosine", "'constant' or 'cosine'.")
    warmup_share: float = _setting(
        0.05, "Share of the steps in which the rate rises (cosine)."
    )
    weight_decay: float = _setting(0.0, "Decoupled weight decay.")
    adam_epsilon: float = _setting(1e-7, "Adam's epsilon.")
    clipnorm: float = _setting(1.0, "Largest norm of a variable's gradient.")
    ema_momentum: float = _setting(
        0.0,
        "Keep an average of the weights, each step so much of the old one; it "
        "is what is validated and saved. 0 for none.",
    )
    matmul_precision: str = _setting(
        "float32",
        "Products of matrices on a CPU: 'float32', 'bfloat16', or 'auto' for "
        "bfloat16 where the processor has units for it and a trial shows that "
        "they are faster.",
        may_change=True,
    )
    dtype_policy: str = _setting(
        "float32",
        "Keras' policy of the trained layers: 'float32', or 'mixed_bfloat16' "
        "for an accelerator that multiplies it; the captioner that is saved "
        "is in float32.",
    )
    jit_compile: bool = _setting(
        False,
        "Have XLA compile the training step, once for each shape of a batch: "
        "pays on an accelerator, not on a CPU.",
        may_change=True,
    )
    seed: int = _setting(0, "Seed of weights, order and masks.")

    # === Checkpoints ===
    checkpoint_steps: int = _setting(
        200,
        "Steps between checkpoints within an epoch; 0 for none.",
        may_change=True,
    )
    checkpoint_epochs: int = _setting(
        1, "Epochs between checkpoints at an epoch's end.", may_change=True
    )
    keep_checkpoints: int = _setting(
        3, "Checkpoints kept, besides the best.", may_change=True
    )

    # === Decoding ===
    order: str = _setting(
        "confidence",
        "'confidence' writes in parallel passes, 'left_to_right' a word a "
        "pass.",
        may_change=True,
    )
    passes: int = _setting(
        6, "Parallel passes that write a caption.", may_change=True
    )
    length_candidates: int = _setting(
        3, "Candidate lengths side by side.", may_change=True
    )
    length_weight: float = _setting(
        0.0,
        "Weight of a length's log-probability in choosing a candidate.",
        may_change=True,
    )
    overlap_weight: float = _setting(
        4.0,
        "Weight in choosing a candidate of the words that the concept head "
        "expects it to share with people's captions; without that head none.",
        may_change=True,
    )
    consensus_draws: int = _setting(
        0,
        "Captions drawn beside the candidates, to keep the one that all of "
        "them resemble most; 0 keeps the likeliest candidate.",
        may_change=True,
    )
    finalists: int = _setting(
        0,
        "Best captions of each photo that are read once more, each word masked "
        "in turn, before one is chosen; 0 for none.",
        may_change=True,
    )

    def __post_init__(self) -> None:
        """Checks the fields, each by itself and then those that must agree."""
        check_settings(self)

    def save(self, path: str | Path) -> None:
        """Writes the settings as JSON; other workers may be reading them."""
        with write_atomically(path) as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Settings":
        """Reads settings that `save` wrote.

        Raises:
            InputError: The file is missing, no JSON, has other fields, or
                holds a value out of range.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**content)
        except InputError as err:
            raise InputError(f"{path}: {err}") from err
        except (OSError, ValueError, TypeError) as err:
            raise InputError(
                f"{path}: expected saved settings, found something else: {err}."
            ) from err


@dataclass(frozen=True)
class DecodingSettings:
    """How captions are written where a call does not say otherwise."""

    order: str = "confidence"
    passes: int = 6
    length_candidates: int = 3
    overlap_weight: float = 4.0
    mbr_samples: int = 0
    rerank_top: int = 0

    def __post_init__(self) -> None:
        """Checks the fields."""
        if self.order not in ("confidence", "left_to_right"):
            raise InputError(
                "`order` must be one of confidence, left_to_right. Received: "
                f"{self.order}."
            )
        for name, least in (
            ("passes", 1),
            ("length_candidates", 1),
            ("overlap_weight", 0),
            ("mbr_samples", 0),
            ("rerank_top", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, float | int) and value < least:
                raise InputError(
                    f"`{name}` must be at least {least}. Received: "
                    f"{name}={value}."
                )
