"""Settings of a captioner and its training, in groups.

Each field stands with its help text and its bounds. On the command line the
fields are flat options (`--image-height`), in Python they are nested
(`settings.image.height`).
"""

import dataclasses
import json
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, get_args

from bmt_keras.atomic import write_atomically
from bmt_keras.errors import InputError

_BOUNDS = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}


def _setting(
    default: Any,
    text: str,
    option: str | None = None,
    **bounds: float,
) -> Any:
    """A field: its value in the preset `sample`, help text and flat name."""
    metadata = {"help": text, "option": option, "bounds": bounds}
    return field(default=default, metadata=metadata)


_count = partial(_setting, at_least=1)
_amount = partial(_setting, at_least=0)
_share = partial(_setting, at_least=0, at_most=1)
# At 1 no channel would be left to scale up, the true token would count no more
# than any other, and an average would stay where it began.
_part = partial(_setting, at_least=0, below=1)


class _Group:
    """Settings that belong together; checks each field by its own bounds."""

    def __post_init__(self) -> None:
        """Checks the fields."""
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            # A tensor is checked where it is computed.
            if isinstance(value, bool | int | float | str | None):
                rule = _broken_rule(each, value)
                if rule:
                    raise _error(_flat_name(each), rule, value)


def _error(name: str, rule: str, value: Any) -> InputError:
    return InputError(f"`{name}` must be {rule}. Received: {name}={value}.")


def _flat_name(each: "dataclasses.Field[Any]") -> str:
    return each.metadata.get("option") or each.name


def _broken_rule(each: "dataclasses.Field[Any]", value: Any) -> str:
    """The rule of a field that a value breaks; empty for none."""
    if choices := get_args(each.type):
        return "" if value in choices else f"one of {', '.join(choices)}"
    # A call's options add fields of any type, and some without bounds.
    kind: Any = object if each.type is Any else each.type
    if not isinstance(value, int | float if kind is float else kind):
        return f"of type {kind.__name__}"
    bounds = each.metadata.get("bounds", {})
    # Not `value < bound`: NaN is on no side of a bound.
    if all(_BOUNDS[name](value, bound) for name, bound in bounds.items()):
        return ""
    return " and ".join(
        f"{name.replace('_', ' ')} {bound}" for name, bound in bounds.items()
    )


@dataclass(frozen=True)
class ImageSettings(_Group):
    """The image tower and the pixels that it takes."""

    model: str = _setting(
        "SmallCNN", "SmallCNN, or a model of keras.applications.", "image_model"
    )
    layer: str = _setting("", "Layer that gives the embedding.", "image_layer")
    pooling: int = _count(1, "Average N by N of its cells.", "image_pooling")
    weights: str = _setting(
        "random", "File of weights, 'imagenet' or 'random'.", "image_weights"
    )
    height: int = _count(
        64, "Height of the resized image in pixels.", "image_height"
    )
    width: int = _count(
        64, "Width of the resized image in pixels.", "image_width"
    )
    like_opencv: bool = _setting(
        False, "Unturned, aliased, no transparency.", "image_like_opencv"
    )
    trainable: bool = _setting(
        True, "Train the image tower, too.", "image_trainable"
    )
    precision: Literal["float32", "bfloat16"] = _setting(
        "float32",
        "float32 or bfloat16; frozen tower on a CPU.",
        "image_precision",
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
    prune_vocabulary: bool = _setting(False, "Drop tokens no caption uses.")
    min_token_count: int = _count(1, "Drop those used fewer times.")
    pretrained_head: bool = _setting(False, "Load the masked-LM head, too.")
    trainable: bool = _setting(True, "Train the text tower.", "text_trainable")
    lora_rank: int = _amount(0, "Rank of LoRA; 0 trains all.")
    num_layers: int = _count(2, "Layers, if from scratch.", "text_num_layers")
    num_heads: int = _count(4, "Its attention heads.", "text_num_heads")
    embedding_dim: int = _count(
        64, "Width of its token embedding.", "text_embedding_dim"
    )
    hidden_dim: int = _count(128, "Width of its states.", "text_hidden_dim")
    intermediate_dim: int = _count(
        512, "Width of its feed-forward network.", "text_intermediate_dim"
    )
    dropout: float = _share(0.0, "Its dropout.", "text_dropout")
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

    kind: Literal["cross_attention", "concat"] = _setting(
        "cross_attention", "cross_attention or concat.", "fusion"
    )
    num_layers: int = _count(
        2, "Layers of cross-attention.", "fusion_num_layers"
    )
    num_heads: int = _count(4, "Heads of cross-attention.", "fusion_num_heads")
    dropout: float = _share(0.0, "Dropout in the fusion.", "fusion_dropout")
    image_dropout: float = _part(0.0, "Dropout of the image's channels.")
    predict_length: bool = _setting(True, "Predict the length from the image.")
    concept_dim: int = _amount(0, "Width of the concept head; 0: none.")
    concept_weight: float = _amount(
        0.35, "Weight of its log-odds in the logits."
    )


@dataclass(frozen=True)
class BatchSettings(_Group):
    """Which captions a training step sees, and what is masked in them."""

    captions_per_image: int = _amount(0, "The first N captions; 0: all.")
    drop_final_period: bool = _setting(False, "Drop a caption's full stop.")
    group_size: int = _count(1, "Captions per image in a batch.")
    batch_size: int = _count(64, "Captions in a batch.")
    bucket_width: int = _amount(4, "Tokens by which lengths differ; 0: any.")
    mirror: bool = _setting(False, "Mirror half of the images.")
    shuffle_buffer: int = _amount(0, "Shuffle by a buffer; 0: all.")
    mask_rate: float = _share(0.0, "Share of masked tokens; 0 draws it anew.")
    cached_maskings: int = _amount(0, "Maskings computed ahead; 0: none.")
    redraw_epochs: int = _amount(0, "Epochs to a redraw; 0: never.")


@dataclass(frozen=True)
class OptimizationSettings(_Group):
    """Losses, optimizer, arithmetic and checkpoints of a run."""

    epochs: int = _count(4, "Epochs.")
    steps_per_epoch: int = _amount(
        0, "Batches per epoch; 0: all captions once."
    )
    gradient_accumulation_steps: int = _count(1, "Batches per update.")
    label_smoothing: float = _part(0.0, "Label smoothing of the loss.")
    self_critical_samples: int = _amount(
        0, "Learn from N samples per image; 0: none."
    )
    learning_rate: float = _setting(
        1e-3, "Adam's (peak) learning rate.", above=0
    )
    schedule: Literal["constant", "cosine"] = _setting(
        "cosine", "constant or cosine."
    )
    # The cosine takes the steps that the warm-up leaves.
    warmup_share: float = _share(0.05, "Share of steps that warm up (cosine).")
    weight_decay: float = _amount(0.0, "Decoupled weight decay.")
    adam_epsilon: float = _setting(1e-7, "Adam's epsilon.", above=0)
    clipnorm: float = _setting(
        1.0, "Largest norm of a variable's gradient.", above=0
    )
    ema_momentum: float = _part(0.0, "Momentum of averaged weights; 0: none.")
    matmul_precision: Literal["float32", "bfloat16"] = _setting(
        "float32", "float32 or bfloat16, on a CPU."
    )
    dtype_policy: Literal["float32", "mixed_bfloat16"] = _setting(
        "float32", "float32 or mixed_bfloat16."
    )
    jit_compile: bool = _setting(False, "Compile steps by XLA.")
    # NumPy takes no larger one.
    seed: int = _amount(0, "Seed of weights, order and masks.", below=2**32)
    checkpoint_steps: int = _amount(200, "Steps between checkpoints; 0: none.")
    checkpoint_epochs: int = _count(1, "Epochs between checkpoints.")
    keep_checkpoints: int = _count(3, "Checkpoints kept, besides the best.")


@dataclass(frozen=True)
class DecodingSettings(_Group):
    """How captions are written where a call does not say otherwise."""

    order: Literal["confidence", "left_to_right"] = _setting(
        "confidence", "confidence or left_to_right."
    )
    passes: int = _count(6, "Parallel passes that write a caption.")
    length_candidates: int = _count(3, "Lengths tried per caption.")
    overlap_weight: float = _amount(
        4.0, "Weight of expected tokens in the choice."
    )
    mbr_samples: int = _amount(0, "Minimum Bayes risk by N samples; 0: none.")
    rerank_top: int = _amount(0, "Score the best N again; 0: none.")


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

    image: ImageSettings = ImageSettings()
    text: TextSettings = TextSettings()
    fusion: FusionSettings = FusionSettings()
    batches: BatchSettings = BatchSettings()
    optimization: OptimizationSettings = OptimizationSettings()
    decoding: DecodingSettings = DecodingSettings()

    def __post_init__(self) -> None:
        """Checks what must agree."""
        for check in (_check_towers, _check_fusion, _check_steps):
            check(self)

    @classmethod
    def options(cls) -> Iterator[Option]:
        """Gives each field under its flat name."""
        for group in dataclasses.fields(cls):
            for each in dataclasses.fields(group.type):  # type: ignore[arg-type]
                yield Option(_flat_name(each), group.name, each)

    def get(self, name: str) -> Any:
        """Gives the value of the option `name`."""
        option = _find(name)
        return getattr(getattr(self, option.group), option.field.name)

    def replace(self, **options: Any) -> "Settings":
        """Gives these settings with some options set otherwise.

        Args:
            **options: Values by flat name, such as `image_height=128`.

        Raises:
            InputError: There is no such option, or a value is out of range.
        """
        changes: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            option = _find(name)
            changes.setdefault(option.group, {})[option.field.name] = value
        groups = {
            group: dataclasses.replace(getattr(self, group), **values)
            for group, values in changes.items()
        }
        return dataclasses.replace(self, **groups)

    def refuse(self, name: str, rule: str) -> NoReturn:
        """Raises an `InputError`: `rule` says what the option must be."""
        raise _error(name, rule, self.get(name))

    def expect(self, reason: str, **options: Any) -> None:
        """Refuses other values of options than those that a reason asks for."""
        for name, value in options.items():
            if self.get(name) != value:
                self.refuse(name, f"{value!r} {reason}")

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
            # A field's default is of its group's class.
            groups = {k: type(getattr(cls, k))(**x) for k, x in content.items()}
            return cls(**groups)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        # JSON of another shape raises TypeError or AttributeError.
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: expected saved settings, found something else: "
                f"{error}."
            ) from error


# Behind the class, whose fields they list.
_OPTIONS = {each.name: each for each in Settings.options()}


def _find(name: str) -> Option:
    if name not in _OPTIONS:
        raise InputError(
            f"There is no setting `{name}`; the settings are: "
            f"{', '.join(_OPTIONS)}."
        )
    return _OPTIONS[name]


# === What must agree ===


def _check_towers(settings: Settings) -> None:
    image, text, fusion = settings.image, settings.text, settings.fusion
    if image.trainable:
        settings.expect(
            "for an image tower that is trained along (see `matmul_precision`)",
            image_precision="float32",
        )
    if not text.trainable:
        reason = "for a frozen text tower (--no-text-trainable)"
        settings.expect(reason, lora_rank=0)
    least = text.sequence_length
    if text.max_positions < least:
        settings.refuse("max_positions", f"at least sequence_length={least}")
    # A pretrained tower has a width, heads and a vocabulary of its own.
    if text.weights != "random":
        settings.expect(
            "for a pretrained text tower, whose tokens are as they are",
            prune_vocabulary=False,
        )
        return
    divides = f"a divisor of text_hidden_dim={text.hidden_dim}"
    if text.hidden_dim % text.num_heads:
        settings.refuse("text_num_heads", divides)
    if fusion.kind != "concat" and text.hidden_dim % fusion.num_heads:
        settings.refuse("fusion_num_heads", divides)


def _check_fusion(settings: Settings) -> None:
    is_concat = settings.fusion.kind == "concat"
    if is_concat:
        # It has no keys and values that a group could share.
        settings.expect(
            "for the fusion 'concat', which takes the image for each caption "
            "and has no concept head",
            group_size=1,
            concept_dim=0,
        )
    samples = settings.optimization.self_critical_samples
    if samples == 1 or (samples and is_concat):
        settings.refuse(
            "self_critical_samples",
            "0, or at least 2 with the fusion 'cross_attention'",
        )


def _check_steps(settings: Settings) -> None:
    maskings = settings.batches.cached_maskings
    # XLA compiles a step anew for each shape of its batch.
    if maskings or settings.optimization.self_critical_samples:
        settings.expect(
            "for cached maskings and for sampled captions, whose shapes change "
            "from step to step",
            jit_compile=False,
        )
    if not maskings:
        settings.expect("without `cached_maskings`", redraw_epochs=0)
        return
    settings.expect(
        "for cached maskings, which keep the states of the masked tokens alone "
        "and of a frozen text tower without dropout",
        fusion="concat",
        text_trainable=False,
        text_dropout=0,
    )
    if 0 < settings.batches.redraw_epochs < maskings:
        settings.refuse(
            "redraw_epochs",
            f"0 or at least cached_maskings={maskings}, for each epoch takes "
            "one of the maskings",
        )
