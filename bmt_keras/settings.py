"""Settings of a captioner and its training, in groups.

Each field stands beside its help text and its bounds. On the command line the
fields are flat options (`--image-height`), in Python they are nested
(`settings.image.height`).
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bmt_keras.atomic import write_atomically
from bmt_keras.errors import InputError


def _setting(
    default: Any,
    text: str,
    *,
    option: str | None = None,
    choices: Sequence[str] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    may_change: bool = False,
) -> Any:
    """A dataclass field with its help text, its bounds and its option.

    A field that may change does not shape what a run has learnt so far, so
    that a run goes on with another value. The option's name is the field's
    unless another one is given.
    """
    bounds = (
        (at_least, "at least {}", lambda value, limit: value >= limit),
        (above, "above {}", lambda value, limit: value > limit),
        (at_most, "at most {}", lambda value, limit: value <= limit),
        (below, "below {}", lambda value, limit: value < limit),
    )
    rules = [each for each in bounds if each[0] is not None]
    return field(
        default=default,
        metadata={
            "help": text,
            "option": option,
            "choices": tuple(choices),
            "rule": " and ".join(rule.format(x) for x, rule, _ in rules),
            "holds": lambda value: all(test(value, x) for x, _, test in rules),
            "may_change": may_change,
        },
    )


class _Group:
    """Settings that belong together; checks each field by its own bounds."""

    def __post_init__(self) -> None:
        """Checks the fields."""
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            value, metadata = getattr(self, each.name), each.metadata
            if not metadata:
                continue  # of a subclass, which checks it
            name = metadata["option"] or each.name
            if metadata["choices"] and value not in metadata["choices"]:
                raise InputError(
                    f"`{name}` must be one of "
                    f"{', '.join(metadata['choices'])}. Received: {value}."
                )
            # A tensor is checked where it is computed.
            known = isinstance(value, bool | int | float)
            if known and not metadata["holds"](value):
                raise InputError(
                    f"`{name}` must be {metadata['rule']}. Received: "
                    f"{name}={value}."
                )


@dataclass(frozen=True)
class ImageSettings(_Group):
    """The image tower and the pixels that it takes."""

    model: str = _setting(
        "SmallCNN",
        "SmallCNN, or a model of keras.applications.",
        option="image_model",
    )
    layer: str = _setting(
        "",
        "Layer whose output is the image embedding; empty for the last.",
        option="image_layer",
    )
    pooling: int = _setting(
        1,
        "Average N by N cells of the image embedding (keras.applications).",
        option="image_pooling",
        at_least=1,
    )
    weights: str = _setting(
        "random",
        "File of weights, 'imagenet', or 'random'.",
        option="image_weights",
    )
    height: int = _setting(
        64,
        "Height of the resized image in pixels.",
        option="image_height",
        at_least=1,
    )
    width: int = _setting(
        64,
        "Width of the resized image in pixels.",
        option="image_width",
        at_least=1,
    )
    trainable: bool = _setting(
        True,
        "Train the image tower along, instead of embedding images once.",
        option="image_trainable",
    )
    precision: str = _setting(
        "float32",
        "Precision in which the frozen image tower embeds images on a CPU; "
        "bfloat16 is faster where the processor has units for it.",
        option="image_precision",
        choices=("float32", "bfloat16"),
    )


@dataclass(frozen=True)
class TextSettings(_Group):
    """The text tower, its vocabulary and the length of a sequence."""

    weights: str = _setting(
        "random",
        "Folder of a pretrained ALBERT, 'hf://organisation/name', a KerasHub "
        "preset, or 'random'.",
        option="text_weights",
    )
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
        1,
        "Drop also those used fewer times (--prune-vocabulary).",
        at_least=1,
    )
    pretrained_head: bool = _setting(
        False, "Start from the masked-LM head of --text-weights, too."
    )
    trainable: bool = _setting(
        True, "Train the text tower along.", option="text_trainable"
    )
    lora_rank: int = _setting(
        0,
        "Train changes of this rank to the text tower's queries and values "
        "alone (LoRA); 0 trains all of it.",
        at_least=0,
    )
    num_layers: int = _setting(
        2, "Layers of a fresh text tower.", option="text_num_layers", at_least=1
    )
    num_heads: int = _setting(
        4, "Its attention heads.", option="text_num_heads", at_least=1
    )
    embedding_dim: int = _setting(
        64,
        "Width of its token embedding.",
        option="text_embedding_dim",
        at_least=1,
    )
    hidden_dim: int = _setting(
        128, "Width of its states.", option="text_hidden_dim", at_least=1
    )
    intermediate_dim: int = _setting(
        512,
        "Width of its feed-forward network.",
        option="text_intermediate_dim",
        at_least=1,
    )
    dropout: float = _setting(
        0.0, "Its dropout.", option="text_dropout", at_least=0, at_most=1
    )
    sequence_length: int = _setting(
        24,
        "Longest sequence in tokens, [CLS] and [SEP] included.",
        at_least=3,
    )
    max_positions: int = _setting(
        64,
        "Positions that a fresh text tower has embeddings for.",
        at_least=3,
    )

    @property
    def max_caption_tokens(self) -> int:
        """Most tokens of a caption, `[CLS]` and `[SEP]` left out."""
        return self.sequence_length - 2


@dataclass(frozen=True)
class FusionSettings(_Group):
    """How the image meets the text, and the heads that read the image."""

    kind: str = _setting(
        "cross_attention",
        "How image and text are joined.",
        option="fusion",
        choices=("cross_attention", "concat"),
    )
    num_layers: int = _setting(
        2,
        "Layers of cross-attention.",
        option="fusion_num_layers",
        at_least=1,
    )
    num_heads: int = _setting(
        4, "Heads of cross-attention.", option="fusion_num_heads", at_least=1
    )
    dropout: float = _setting(
        0.0,
        "Dropout in the fusion.",
        option="fusion_dropout",
        at_least=0,
        at_most=1,
    )
    image_dropout: float = _setting(
        0.0,
        "Share of the image embedding's channels that training drops "
        "(cross_attention).",
        at_least=0,
        below=1,
    )
    predict_length: bool = _setting(
        True, "Predict a caption's length from its image."
    )
    concept_dim: int = _setting(
        0,
        "Hidden width of a head that predicts from the image which tokens its "
        "captions hold (cross_attention); 0 for no such head.",
        at_least=0,
    )
    concept_weight: float = _setting(
        0.35,
        "Weight of that head's log-odds in the tokens' logits.",
        at_least=0,
        may_change=True,
    )


@dataclass(frozen=True)
class BatchSettings(_Group):
    """Which captions a training step sees, and what is masked in them."""

    captions_per_image: int = _setting(
        0,
        "Train on the first N captions of each image; 0 for all.",
        at_least=0,
    )
    drop_final_period: bool = _setting(
        False, "Leave out the full stop at a caption's end."
    )
    group_size: int = _setting(
        1,
        "Captions of an image that share a batch, and one pass of the image "
        "(cross_attention).",
        at_least=1,
    )
    batch_size: int = _setting(64, "Captions in a batch.", at_least=1)
    bucket_width: int = _setting(
        4,
        "Batches hold captions of like length, in steps of N tokens; 0 mixes "
        "lengths and pads to a batch's longest.",
        at_least=0,
    )
    mirror: bool = _setting(
        False,
        "Train on half of the images mirrored, others in each epoch.",
    )
    shuffle_buffer: int = _setting(
        0,
        "Draw captions from a buffer of N; 0 shuffles all of them.",
        at_least=0,
    )
    mask_rate: float = _setting(
        0.0,
        "Share of masked tokens; 0 draws it from U(0,1] for each caption.",
        at_least=0,
        at_most=1,
    )
    cached_maskings: int = _setting(
        0,
        "Mask each caption N times ahead, run the frozen text tower once for "
        "each masking, and learn from the states on disk (concat, "
        "--no-text-trainable); 0 runs the text tower at every step.",
        at_least=0,
    )
    redraw_epochs: int = _setting(
        0,
        "Epochs after which cached maskings are drawn anew; 0 for never.",
        at_least=0,
    )


@dataclass(frozen=True)
class OptimizationSettings(_Group):
    """Losses, optimizer, arithmetic and checkpoints of a run."""

    epochs: int = _setting(4, "Epochs.", at_least=1)
    steps_per_epoch: int = _setting(
        0,
        "Batches in an epoch; 0 for all training captions once.",
        at_least=0,
    )
    gradient_accumulation_steps: int = _setting(
        1, "Batches whose mean gradient makes one update.", at_least=1
    )
    label_smoothing: float = _setting(
        0.0, "Label smoothing of the loss.", at_least=0, below=1
    )
    length_loss_weight: float = _setting(
        0.1, "Weight of the loss of the caption's length.", at_least=0
    )
    self_critical_samples: int = _setting(
        0,
        "Learn from N captions that the captioner of --start samples of each "
        "image, weighed by CIDEr-D; 0 learns from the captions given.",
        at_least=0,
    )
    learning_rate: float = _setting(
        1e-3, "Adam's (peak) learning rate.", above=0
    )
    schedule: str = _setting(
        "cosine", "Learning rate schedule.", choices=("constant", "cosine")
    )
    warmup_share: float = _setting(
        0.05,
        "Share of the steps in which the rate rises (cosine).",
        at_least=0,
        at_most=1,
    )
    weight_decay: float = _setting(0.0, "Decoupled weight decay.", at_least=0)
    adam_epsilon: float = _setting(1e-7, "Adam's epsilon.", above=0)
    clipnorm: float = _setting(
        1.0, "Largest norm of a variable's gradient.", above=0
    )
    ema_momentum: float = _setting(
        0.0,
        "Momentum of an average of the weights, which is what is validated "
        "and saved; 0 for none.",
        at_least=0,
        below=1,
    )
    matmul_precision: str = _setting(
        "float32",
        "Matrix products on a CPU; bfloat16 is faster where the processor has "
        "units for it.",
        choices=("float32", "bfloat16"),
        may_change=True,
    )
    dtype_policy: str = _setting(
        "float32",
        "Keras' policy of the trained layers; mixed_bfloat16 is for an "
        "accelerator. The captioner that is saved is in float32.",
        choices=("float32", "mixed_bfloat16"),
    )
    jit_compile: bool = _setting(
        False,
        "Have XLA compile the training step, once for each shape of a batch: "
        "pays on an accelerator, not on a CPU.",
        may_change=True,
    )
    seed: int = _setting(
        0, "Seed of weights, order and masks.", at_least=0, below=2**32
    )
    checkpoint_steps: int = _setting(
        200,
        "Steps between checkpoints within an epoch; 0 for none.",
        at_least=0,
        may_change=True,
    )
    checkpoint_epochs: int = _setting(
        1,
        "Epochs between checkpoints at an epoch's end.",
        at_least=1,
        may_change=True,
    )
    keep_checkpoints: int = _setting(
        3, "Checkpoints kept, besides the best.", at_least=1, may_change=True
    )


@dataclass(frozen=True)
class DecodingSettings(_Group):
    """How captions are written where a call does not say otherwise."""

    order: str = _setting(
        "confidence",
        "Write in parallel passes by confidence, or one token per pass.",
        choices=("confidence", "left_to_right"),
        may_change=True,
    )
    passes: int = _setting(
        6,
        "Parallel passes that write a caption.",
        at_least=1,
        may_change=True,
    )
    length_candidates: int = _setting(
        3,
        "Candidates of different lengths, written side by side.",
        at_least=1,
        may_change=True,
    )
    overlap_weight: float = _setting(
        4.0,
        "Weight, in choosing a candidate, of the tokens that the concept head "
        "expects it to share with people's captions.",
        at_least=0,
        may_change=True,
    )
    mbr_samples: int = _setting(
        0,
        "Captions sampled per image to choose the one that all resemble most "
        "(minimum Bayes risk); 0 chooses the likeliest candidate.",
        at_least=0,
        may_change=True,
    )
    rerank_top: int = _setting(
        0,
        "Candidates per image that are scored again, each token masked in "
        "turn, before one is chosen; 0 for none.",
        at_least=0,
        may_change=True,
    )


class Option(NamedTuple):
    """A field of the settings under its flat name.

    Attributes:
        name: The flat name, such as `image_height`.
        group: The group's name in `Settings`.
        field: The dataclass field in the group.
    """

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
        for name, holds, rule in (
            *_image_rules(self),
            *_text_rules(self),
            *_fusion_rules(self),
            *_step_rules(self),
        ):
            if not holds:
                raise InputError(
                    f"`{name}` must be {rule}. Received: "
                    f"{name}={self.get(name)}."
                )

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
        return dataclasses.replace(
            self,
            **{
                group: dataclasses.replace(getattr(self, group), **values)
                for group, values in changes.items()
            },
        )

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
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                **{
                    name: kinds[name](**values)  # type: ignore[operator]
                    for name, values in content.items()
                }
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            raise InputError(
                f"{path}: expected saved settings, found something else: {e}."
            ) from e


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


def _image_rules(settings: Settings) -> Iterator[_Rule]:
    image = settings.image
    yield (
        "image_precision",
        not image.trainable or image.precision == "float32",
        "'float32' for an image tower that is trained along (see "
        "`matmul_precision`)",
    )


def _text_rules(settings: Settings) -> Iterator[_Rule]:
    text = settings.text
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
    yield (
        "jit_compile",
        not (steps.jit_compile and (maskings or steps.self_critical_samples)),
        "False for cached maskings and for sampled captions, whose shapes "
        "change from step to step",
    )
    yield (
        "redraw_epochs",
        bool(maskings) or not redraw,
        ("0 without `cached_maskings`"),
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
