"""Settings of a captioner and its training, in groups.

Each field stands with its help text and its bounds. On the command line the
fields are flat options (`--image-height`), in Python they are nested
(`settings.image.height`).
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bmt_keras.atomic import write_atomically
from bmt_keras.errors import InputError

_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "at_least": ("at least", lambda value, bound: value >= bound),
    "above": ("above", lambda value, bound: value > bound),
    "at_most": ("at most", lambda value, bound: value <= bound),
    "below": ("below", lambda value, bound: value < bound),
}


def _setting(
    default: Any,
    text: str,
    option: str | None = None,
    *,
    choices: Sequence[str] = (),
    may_change: bool = False,
    **bounds: float,
) -> Any:
    """A field: its value in the preset `sample`, help text and flat name."""
    metadata = {
        "help": text,
        "option": option,
        "choices": tuple(choices),
        "bounds": bounds,
        "may_change": may_change,
    }
    return field(default=default, metadata=metadata)


# A run goes on with another value: it shapes nothing that has been learned.
_changeable = partial(_setting, may_change=True)


class _Group:
    """Settings that belong together; checks each field by its own bounds."""

    def __post_init__(self) -> None:
        """Checks the fields."""
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            # A tensor is checked where it is computed.
            if isinstance(value, bool | int | float | str | None):
                name = each.metadata.get("option") or each.name
                rule = _find_fault(each, value)
                _check(name, not rule, rule, value)


def _check(name: str, holds: bool, rule: str, value: Any) -> None:
    if not holds:
        raise InputError(f"`{name}` must be {rule}. Received: {name}={value}.")


def _find_fault(each: "dataclasses.Field[Any]", value: Any) -> str:
    """The rule that a value breaks; empty for none."""
    kind = each.type
    if kind is float and isinstance(value, int):
        kind = int
    if kind in (bool, int, float, str) and not isinstance(value, kind):
        return f"of type {kind.__name__}"
    choices = each.metadata.get("choices", ())
    if choices and value not in choices:
        return f"one of {', '.join(choices)}"
    bounds = each.metadata.get("bounds", {})
    # Not `value < bound`: NaN is on no side of a bound.
    if all(_BOUNDS[name][1](value, bound) for name, bound in bounds.items()):
        return ""
    return " and ".join(
        f"{_BOUNDS[name][0]} {bound}" for name, bound in bounds.items()
    )


@dataclass(frozen=True)
class ImageSettings(_Group):
    """The image tower and the pixels that it takes."""

    model: str = _setting(
        "SmallCNN", "SmallCNN, or a model of keras.applications.", "image_model"
    )
    layer: str = _setting(
        "", "Layer that gives the image embedding.", "image_layer"
    )
    pooling: int = _setting(
        1, "Average N by N cells of the embedding.", "image_pooling", at_least=1
    )
    weights: str = _setting(
        "random", "File of weights, 'imagenet' or 'random'.", "image_weights"
    )
    height: int = _setting(
        64, "Height of the resized image in pixels.", "image_height", at_least=1
    )
    width: int = _setting(
        64, "Width of the resized image in pixels.", "image_width", at_least=1
    )
    trainable: bool = _setting(
        True, "Train the image tower, too.", "image_trainable"
    )
    precision: str = _setting(
        "float32",
        "float32 or bfloat16; frozen tower on a CPU.",
        "image_precision",
        choices=("float32", "bfloat16"),
    )


@dataclass(frozen=True)
class TextSettings(_Group):
    """The text tower, its vocabulary and the length of a sequence."""

    weights: str = _setting(
        "random", "'random', a folder or 'hf://org/name'.", "text_weights"
    )
    vocabulary: str = _setting(
        "", "SentencePiece file; empty makes whole words."
    )
    prune_vocabulary: bool = _setting(
        False, "Drop tokens that no caption uses."
    )
    min_token_count: int = _setting(
        1, "Drop those used fewer times.", at_least=1
    )
    pretrained_head: bool = _setting(False, "Load the masked-LM head, too.")
    trainable: bool = _setting(True, "Train the text tower.", "text_trainable")
    lora_rank: int = _setting(0, "Rank of LoRA; 0 trains all.", at_least=0)
    num_layers: int = _setting(
        2, "Layers, if from scratch.", "text_num_layers", at_least=1
    )
    num_heads: int = _setting(
        4, "Its attention heads.", "text_num_heads", at_least=1
    )
    embedding_dim: int = _setting(
        64, "Width of its token embedding.", "text_embedding_dim", at_least=1
    )
    hidden_dim: int = _setting(
        128, "Width of its states.", "text_hidden_dim", at_least=1
    )
    intermediate_dim: int = _setting(
        512,
        "Width of its feed-forward network.",
        "text_intermediate_dim",
        at_least=1,
    )
    dropout: float = _setting(
        0.0, "Its dropout.", "text_dropout", at_least=0, at_most=1
    )
    # At least `[CLS]`, one token and `[SEP]`.
    sequence_length: int = _setting(
        24, "Longest caption, with [CLS] and [SEP].", at_least=3
    )
    max_positions: int = _setting(64, "Positions, if from scratch.", at_least=3)

    @property
    def max_caption_tokens(self) -> int:
        """Most tokens of a caption, `[CLS]` and `[SEP]` left out."""
        return self.sequence_length - 2


@dataclass(frozen=True)
class FusionSettings(_Group):
    """How the image meets the text, and the heads that read the image."""

    kind: str = _setting(
        "cross_attention",
        "cross_attention or concat.",
        "fusion",
        choices=("cross_attention", "concat"),
    )
    num_layers: int = _setting(
        2, "Layers of cross-attention.", "fusion_num_layers", at_least=1
    )
    num_heads: int = _setting(
        4, "Heads of cross-attention.", "fusion_num_heads", at_least=1
    )
    dropout: float = _setting(
        0.0, "Dropout in the fusion.", "fusion_dropout", at_least=0, at_most=1
    )
    # Of all channels nothing would be left to scale up.
    image_dropout: float = _setting(
        0.0, "Dropout of the image's channels.", at_least=0, below=1
    )
    predict_length: bool = _setting(True, "Predict the length from the image.")
    concept_dim: int = _setting(
        0, "Width of the concept head; 0: none.", at_least=0
    )
    concept_weight: float = _changeable(
        0.35, "Weight of its log-odds in the logits.", at_least=0
    )


@dataclass(frozen=True)
class BatchSettings(_Group):
    """Which captions a training step sees, and what is masked in them."""

    captions_per_image: int = _setting(
        0, "The first N captions; 0: all.", at_least=0
    )
    drop_final_period: bool = _setting(False, "Drop a caption's full stop.")
    group_size: int = _setting(1, "Captions per image in a batch.", at_least=1)
    batch_size: int = _setting(64, "Captions in a batch.", at_least=1)
    bucket_width: int = _setting(
        4, "Tokens by which lengths differ; 0: any.", at_least=0
    )
    mirror: bool = _setting(False, "Mirror half of the images.")
    shuffle_buffer: int = _setting(
        0, "Shuffle by a buffer; 0: all.", at_least=0
    )
    mask_rate: float = _setting(
        0.0, "Share of masked tokens; 0 draws it anew.", at_least=0, at_most=1
    )
    cached_maskings: int = _setting(
        0, "Maskings computed ahead; 0: none.", at_least=0
    )
    redraw_epochs: int = _setting(
        0, "Epochs to a redraw; 0: never.", at_least=0
    )


@dataclass(frozen=True)
class OptimizationSettings(_Group):
    """Losses, optimizer, arithmetic and checkpoints of a run."""

    epochs: int = _setting(4, "Epochs.", at_least=1)
    steps_per_epoch: int = _setting(
        0, "Batches per epoch; 0: all captions once.", at_least=0
    )
    gradient_accumulation_steps: int = _setting(
        1, "Batches per update.", at_least=1
    )
    # At 1 the true token would count no more than any other.
    label_smoothing: float = _setting(
        0.0, "Label smoothing of the loss.", at_least=0, below=1
    )
    length_loss_weight: float = _setting(
        0.1, "Weight of the loss of the length.", at_least=0
    )
    self_critical_samples: int = _setting(
        0, "Learn from N samples per image; 0: none.", at_least=0
    )
    learning_rate: float = _setting(
        1e-3, "Adam's (peak) learning rate.", above=0
    )
    schedule: str = _setting(
        "cosine", "constant or cosine.", choices=("constant", "cosine")
    )
    # The cosine takes the steps that the warm-up leaves.
    warmup_share: float = _setting(
        0.05, "Share of steps that warm up (cosine).", at_least=0, at_most=1
    )
    weight_decay: float = _setting(0.0, "Decoupled weight decay.", at_least=0)
    adam_epsilon: float = _setting(1e-7, "Adam's epsilon.", above=0)
    clipnorm: float = _setting(
        1.0, "Largest norm of a variable's gradient.", above=0
    )
    # At 1 the average would stay where it began.
    ema_momentum: float = _setting(
        0.0, "Momentum of averaged weights; 0: none.", at_least=0, below=1
    )
    matmul_precision: str = _changeable(
        "float32",
        "float32 or bfloat16, on a CPU.",
        choices=("float32", "bfloat16"),
    )
    dtype_policy: str = _setting(
        "float32",
        "float32 or mixed_bfloat16.",
        choices=("float32", "mixed_bfloat16"),
    )
    jit_compile: bool = _changeable(False, "Compile steps by XLA.")
    # NumPy takes no larger one.
    seed: int = _setting(
        0, "Seed of weights, order and masks.", at_least=0, below=2**32
    )
    checkpoint_steps: int = _changeable(
        200, "Steps between checkpoints; 0: none.", at_least=0
    )
    checkpoint_epochs: int = _changeable(
        1, "Epochs between checkpoints.", at_least=1
    )
    keep_checkpoints: int = _changeable(
        3, "Checkpoints kept, besides the best.", at_least=1
    )


@dataclass(frozen=True)
class DecodingSettings(_Group):
    """How captions are written where a call does not say otherwise."""

    order: str = _changeable(
        "confidence",
        "confidence or left_to_right.",
        choices=("confidence", "left_to_right"),
    )
    passes: int = _changeable(
        6, "Parallel passes that write a caption.", at_least=1
    )
    length_candidates: int = _changeable(
        3, "Lengths tried per caption.", at_least=1
    )
    overlap_weight: float = _changeable(
        4.0, "Weight of expected tokens in the choice.", at_least=0
    )
    mbr_samples: int = _changeable(
        0, "Minimum Bayes risk by N samples; 0: none.", at_least=0
    )
    rerank_top: int = _changeable(
        0, "Score the best N again; 0: none.", at_least=0
    )


class Option(NamedTuple):
    """A field of a group of `Settings`, under its flat name."""

    name: str
    group: str
    field: "dataclasses.Field[Any]"


@dataclass(frozen=True)
class Settings:
    """All that shapes a captioner and its training.

    The resolved settings are saved as JSON beside the weights. The defaults
    are those of the preset `sample`.

    Raises:
        InputError: A value is out of its range, or two do not go together.
    """

    image: ImageSettings = field(default_factory=ImageSettings)
    text: TextSettings = field(default_factory=TextSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    batches: BatchSettings = field(default_factory=BatchSettings)
    optimization: OptimizationSettings = field(
        default_factory=OptimizationSettings
    )
    decoding: DecodingSettings = field(default_factory=DecodingSettings)

    def __post_init__(self) -> None:
        """Checks what must agree."""
        for rules in (_tower_rules, _fusion_rules, _step_rules):
            for name, holds, rule in rules(self):
                _check(name, holds, rule, self.get(name))

    @classmethod
    def options(cls) -> Iterator[Option]:
        """Gives each field under its flat name."""
        for group in dataclasses.fields(cls):
            for each in dataclasses.fields(group.default_factory):  # type: ignore[arg-type]
                name = each.metadata["option"] or each.name
                yield Option(name, group.name, each)

    def get(self, name: str) -> Any:
        """Gives the value of the option `name`."""
        group, each = _find(name)
        return getattr(getattr(self, group), each)

    def replace(self, **options: Any) -> "Settings":
        """Gives these settings with some options set otherwise.

        Args:
            **options: Values by flat name, such as `image_height=128`.

        Raises:
            InputError: There is no such option, or a value is out of range.
        """
        changes: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            group, each = _find(name)
            changes.setdefault(group, {})[each] = value
        groups = {
            group: dataclasses.replace(getattr(self, group), **values)
            for group, values in changes.items()
        }
        return dataclasses.replace(self, **groups)

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
        kinds = {each.name: each.default_factory for each in _GROUPS}
        # JSON of another shape raises LookupError or AttributeError.
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            groups = {
                name: kinds[name](**values)  # type: ignore[operator]
                for name, values in content.items()
            }
            return cls(**groups)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
        ) as error:
            raise InputError(
                f"{path}: expected saved settings, found something else: "
                f"{error}."
            ) from error


# Behind the class, whose fields they list.
_GROUPS = dataclasses.fields(Settings)
_NAMES = {each.name: each for each in Settings.options()}

# Option, whether its rule holds, and the rule.
_Rule = tuple[str, bool, str]


def _find(name: str) -> tuple[str, str]:
    if name not in _NAMES:
        raise InputError(
            f"There is no setting `{name}`; the settings are: "
            f"{', '.join(_NAMES)}."
        )
    return _NAMES[name].group, _NAMES[name].field.name


def _tower_rules(settings: Settings) -> Iterator[_Rule]:
    image, text = settings.image, settings.text
    yield (
        "image_precision",
        not image.trainable or image.precision == "float32",
        "'float32' for an image tower that is trained along (see "
        "`matmul_precision`)",
    )
    yield (
        "lora_rank",
        text.trainable or not text.lora_rank,
        "0 for a frozen text tower (--no-text-trainable)",
    )
    yield (
        "max_positions",
        text.max_positions >= text.sequence_length,
        f"at least sequence_length={text.sequence_length}",
    )
    is_random = text.weights == "random"
    # A pretrained tower has a width, heads and a vocabulary of its own.
    yield (
        "prune_vocabulary",
        is_random or not text.prune_vocabulary,
        "False for a pretrained text tower, whose tokens are as they are",
    )
    divides = f"a divisor of text_hidden_dim={text.hidden_dim}"
    yield (
        "text_num_heads",
        not is_random or text.hidden_dim % text.num_heads == 0,
        divides,
    )
    yield (
        "fusion_num_heads",
        not is_random
        or settings.fusion.kind == "concat"
        or text.hidden_dim % settings.fusion.num_heads == 0,
        divides,
    )


def _fusion_rules(settings: Settings) -> Iterator[_Rule]:
    attends = settings.fusion.kind == "cross_attention"
    # Concatenation has no keys and values that a group could share.
    yield (
        "group_size",
        attends or settings.batches.group_size == 1,
        "1 for the fusion 'concat', which takes the image for each caption",
    )
    yield (
        "concept_dim",
        attends or not settings.fusion.concept_dim,
        "0 for the fusion 'concat'",
    )
    yield (
        "self_critical_samples",
        settings.optimization.self_critical_samples != 1
        and (attends or not settings.optimization.self_critical_samples),
        "0, or at least 2 with the fusion 'cross_attention'",
    )


def _step_rules(settings: Settings) -> Iterator[_Rule]:
    batches, steps = settings.batches, settings.optimization
    maskings, redraw = batches.cached_maskings, batches.redraw_epochs
    # XLA compiles a step anew for each shape of its batch.
    yield (
        "jit_compile",
        not (steps.jit_compile and (maskings or steps.self_critical_samples)),
        "False for cached maskings and for sampled captions, whose shapes "
        "change from step to step",
    )
    yield (
        "redraw_epochs",
        bool(maskings) or not redraw,
        "0 without `cached_maskings`",
    )
    if not maskings:
        return
    yield (
        "fusion",
        settings.fusion.kind == "concat",
        "'concat' for cached maskings: cross-attention needs all of a "
        "caption's states, not the masked ones alone",
    )
    yield (
        "text_trainable",
        not settings.text.trainable,
        "False for cached maskings, which a trained text tower would make "
        "stale",
    )
    yield (
        "text_dropout",
        settings.text.dropout == 0,
        "0 for cached maskings, for which no dropout is drawn anew",
    )
    yield (
        "redraw_epochs",
        not 0 < redraw < maskings,
        f"0 or at least cached_maskings={maskings}, for each epoch takes one "
        "of the maskings",
    )
