"""The masked language model that sees an image."""

from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from bmt_keras.layers import (
    BimodalFusion,
    ConceptHead,
    CrossAttentionFusion,
    LengthHead,
    MaskedTokenHead,
    MaskedTokenLoss,
    TokenMasking,
)
from bmt_keras.models import training_step
from bmt_keras.models.lora import LoraFactors
from bmt_keras.models.unpadded_albert import (
    compute_blank_once,
    encode_without_padding,
)

# What `get_config` takes as it is: the constructor's arguments by their names.
_ARGUMENTS = (
    *("name", "trainable", "text_tower", "fusion", "masking", "image_tower"),
    *("max_caption_tokens", "label_smoothing", "length_loss_weight"),
    *("concept_dim", "concept_weight", "lora_rank"),
)


class ProjectedImage(NamedTuple):
    """What all passes over the captions of images read of them."""

    cells: Any  # from the fusion's `project_image`
    # Both float32, (images, vocabulary_size), or () without a concept head.
    log_odds: Any  # added to the logits
    token_probabilities: Any  # that a caption of the image holds a token


@keras.saving.register_keras_serializable(package="bmt_keras")
class BimodalMaskedLM(keras.Model):
    """Fills the masked tokens of an image's caption.

    A functional model: the text tower's states of the tokens and the image's
    embedding are fused, and a head tied to the token embedding gives the
    vocabulary's logits at the asked positions. Its `train_step` masks tokens
    by itself, so that it is fitted on whole captions.

    Args:
        text_tower: A `keras_hub.models.AlbertBackbone`. It becomes part of the
            model, and its pooler, which nothing reads, is frozen; with
            `lora_rank` a copy of it does.
        fusion: A `BimodalFusion` as wide as the token embedding, or a
            `CrossAttentionFusion`.
        masking: A `TokenMasking`, used by `fit` and `evaluate`.
        image_embedding_shape: Shape of an image's embedding, without batch.
            Taken from `image_tower` if that is given.
        image_tower: A model from pixels (batch, height, width, 3) to
            embeddings, trained along; None where embeddings are the input.
        max_caption_tokens: Give the model a head that predicts how many tokens
            a caption has, up to this number; None for no such head.
        label_smoothing: Label smoothing of the token loss.
        length_loss_weight: Weight of the length head's loss, which is added.
        concept_dim: Give the model a `ConceptHead` of this `hidden_dim`: its
            log-odds are added to the logits of `token_logits` and of
            `evaluate`, not to those of the call. None for no such head.
        concept_weight: Weight of these log-odds.
        lora_rank: Train changes of this rank to the text tower's queries and
            values, and nothing else of it; None for no LoRA.

    Call arguments:
        inputs: Dictionary of
            `token_ids`: int32, (batch, length);
            `padding_mask`: int32, (batch, length), 1 token, 0 padding;
            `mask_positions`: int32, (batch, positions);
            `images`: float, (images, height, width, 3) in [0, 255], or
            `image_embedding`: float, (images, ...). `batch` is a multiple of
            `images`, and the captions of an image are neighbouring rows.

    Returns:
        Dictionary, all float, of `logits`, (batch, positions, vocabulary_size);
        with a length head `length_logits`, (images, max_caption_tokens + 1);
        with a concept head `concept_logits`, (images, vocabulary_size).
    """

    train_function: Any  # Keras sets both.
    test_function: Any

    def __init__(
        self,
        text_tower: keras.Model,
        fusion: BimodalFusion | CrossAttentionFusion,
        *,
        masking: TokenMasking,
        image_embedding_shape: tuple[int, ...] | None = None,
        image_tower: keras.Model | None = None,
        max_caption_tokens: int | None = None,
        label_smoothing: float = 0.0,
        length_loss_weight: float = 0.1,
        concept_dim: int | None = None,
        concept_weight: float = 0.35,
        lora_rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        if (image_tower is None) == (image_embedding_shape is None):
            raise ValueError(
                "Give either `image_tower` or `image_embedding_shape`. "
                f"Received: image_tower={image_tower}, "
                f"image_embedding_shape={image_embedding_shape}."
            )
        self.lora = None
        if lora_rank is not None:
            tower = type(text_tower).from_config(text_tower.get_config())
            tower.set_weights(text_tower.get_weights())
            text_tower = tower
            self.lora = LoraFactors(text_tower, lora_rank, name="lora")
        self.text_tower = text_tower
        self.fusion = fusion
        self.masking = masking
        self.image_tower = image_tower
        self.head = MaskedTokenHead(
            text_tower.token_embedding,
            # A projecting fusion stands for the dense layer of ALBERT's head.
            use_dense=not fusion.is_projection,
            name="masked_token_head",
        )
        self.length_head = None
        if max_caption_tokens is not None:
            self.length_head = LengthHead(
                max_caption_tokens=max_caption_tokens,
                hidden_dim=text_tower.hidden_dim,
                name="length_head",
            )
        self.concept_head = None
        if concept_dim is not None:
            self.concept_head = ConceptHead(
                vocabulary_size=text_tower.vocabulary_size,
                hidden_dim=concept_dim,
                name="concept_head",
            )
        self.token_loss = MaskedTokenLoss(
            label_smoothing=label_smoothing, name="masked_token_loss"
        )
        # Neither is part of the functional graph nor holds weights.
        self.masking.build((None, None))
        self.token_loss.build((None, None, text_tower.vocabulary_size))

        # The functional graph, with everything that has weights in it.
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
        positions = keras.Input((None,), dtype="int32", name="mask_positions")
        if image_tower is None:
            embedding = keras.Input(
                image_embedding_shape, name="image_embedding"
            )
            image = embedding
        else:
            image = keras.Input(image_tower.input.shape[1:], name="images")
            embedding = image_tower(image)
        states = self.encode_text(token_ids, padding_mask)
        states = fusion(states, embedding, padding_mask)
        outputs = {"logits": self.head(states, mask_positions=positions)}
        if self.length_head is not None:
            outputs["length_logits"] = self.length_head(embedding)
        if self.concept_head is not None:
            outputs["concept_logits"] = self.concept_head(embedding)
        inputs = (token_ids, padding_mask, positions, image)
        named = {each.name: each for each in inputs}
        super().__init__(inputs=named, outputs=outputs, **kwargs)
        # No loss would train it.
        text_tower.pooled_dense.trainable = False
        self.image_embedding_shape = tuple(embedding.shape[1:])
        self.max_caption_tokens = max_caption_tokens
        self.label_smoothing = label_smoothing
        self.length_loss_weight = length_loss_weight
        self.concept_dim = concept_dim
        self.concept_weight = concept_weight
        self.lora_rank = lora_rank

        self.accuracy_tracker = keras.metrics.Mean(name="masked_accuracy")
        # A strategy must be there from the start: it holds the variables.
        self.is_replicated = tf.distribute.has_strategy()
        self.uses_xla = False
        # Whether a training step runs the forward pass of inference, without
        # dropout and with log-odds of concepts: self-critical training asks so.
        self.trains_as_it_predicts = False

    @property
    def image_input(self) -> str:
        """Name of the input that takes the image."""
        return "image_embedding" if self.image_tower is None else "images"

    # === Inference ===

    def token_logits(
        self,
        token_ids: Any,
        padding_mask: Any,
        image_embedding: Any | None = None,
        *,
        mask_positions: Any | None = None,
        projected_image: ProjectedImage | None = None,
        skip_padding: bool = False,
    ) -> Any:
        """The vocabulary's logits, from an image embedding, without dropout.

        A concept head's log-odds are added to them.

        Args:
            token_ids: int32, (batch, length). `batch` is a multiple of
                `images`, and the captions of an image are neighbouring rows.
            padding_mask: int32, (batch, length).
            image_embedding: float, (images, ...).
            mask_positions: int32, (batch, positions), or (positions,) of the
                flattened batch * length; None for all positions.
            projected_image: From `project_image`, in place of
                `image_embedding`.
            skip_padding: Run the text tower at the tokens alone, and once for
                equal captions without a token yet: the same logits at tokens
                in less time, any numbers at padding.

        Returns:
            float, (batch, positions or length, vocabulary_size), or
            (positions, vocabulary_size) where the positions are flat.
        """
        encode: Any = self.encode_text
        if skip_padding:
            encode = partial(
                compute_blank_once,
                partial(encode_without_padding, self.text_tower),
                special_token_ids=self.masking.unmaskable_token_ids,
            )
        projected = projected_image or self.project_image(image_embedding)
        states = encode(token_ids, padding_mask)
        return self._fill(states, padding_mask, projected, mask_positions)

    def encode_text(
        self, token_ids: Any, padding_mask: Any, *, training: bool | None = None
    ) -> Any:
        """The text tower's states of the tokens, before they meet the image.

        Maps `token_ids` and `padding_mask`, int32, (batch, length), to float,
        (batch, length, hidden_dim), with dropout for `training`.
        """
        inputs = {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            "segment_ids": ops.zeros_like(token_ids),
        }
        return self.text_tower(inputs, training=training)["sequence_output"]

    def project_image(self, image_embedding: Any) -> ProjectedImage:
        """Computes what depends on images alone, for many `token_logits`.

        `image_embedding`: float, (images, ...).
        """
        cells = self.fusion.project_image(image_embedding)
        if self.concept_head is None:
            return ProjectedImage(cells, (), ())
        # The concepts learn from their own loss, not from the tokens'.
        logits = ops.stop_gradient(
            self.concept_head(image_embedding, training=False)
        )
        log_odds = self.concept_weight * self.concept_head.log_odds(logits)
        return ProjectedImage(cells, log_odds, ops.sigmoid(logits))

    def _fill(
        self,
        states: Any,
        padding_mask: Any,
        projected: ProjectedImage,
        mask_positions: Any | None,
    ) -> Any:
        """From the text tower's states to logits, without dropout."""
        batch, length = ops.shape(states)[:2]
        states = self.fusion.attend(states, projected.cells, padding_mask)
        logits = self._logits_at(states, mask_positions)
        if self.concept_head is None:
            return logits
        images = ops.shape(projected.log_odds)[0]
        if len(logits.shape) == 2:
            # The image of each flat position: (positions,)
            index = mask_positions // (length * (batch // images))
            return logits + ops.take(projected.log_odds, index, axis=0)
        # (images, captions * positions, vocabulary_size)
        grouped = ops.reshape(logits, (images, -1, logits.shape[-1]))
        grouped += projected.log_odds[:, None]
        return ops.reshape(grouped, ops.shape(logits))

    def _logits_at(self, states: Any, mask_positions: Any | None) -> Any:
        if mask_positions is None or len(mask_positions.shape) == 2:
            return self.head(states, mask_positions=mask_positions)
        # Flat positions are those of one long row: (1, batch * length, dim)
        states = ops.reshape(states, (1, -1, states.shape[-1]))
        return self.head(states, mask_positions=mask_positions[None])[0]

    # === Training ===

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: None = None,
        *,
        metrics: Any = None,
        weighted_metrics: Any = None,
        jit_compile: bool | str = False,
        **kwargs: Any,
    ) -> None:
        """Chooses how the model is trained; more arguments are Keras' own.

        Args:
            optimizer: As Keras takes it.
            loss: None: the model has its own.
            metrics: More metrics than `loss` and `masked_accuracy`. They take
                the labels of the masked tokens, int32, (tokens,), and their
                logits, float, (tokens, vocabulary_size).
            weighted_metrics: The same: all are weighted by what is masked.
            jit_compile: True has XLA compile all of a training step but the
                masks; `"auto"` does not, as XLA compiles each length anew.
            **kwargs: Passed on.

        Raises:
            ValueError: There is a loss, or metrics of compiled or shared steps.
        """
        weights = kwargs.pop("loss_weights", None)
        if loss is not None or weights is not None:
            raise ValueError(
                "`loss` and `loss_weights` must be None: the model has its own "
                "loss, weighted by `length_loss_weight`. Received: "
                f"loss={loss}, loss_weights={weights}."
            )
        weighted_metrics = [*(metrics or ()), *(weighted_metrics or ())] or None
        uses_xla = jit_compile is True and not kwargs.get("run_eagerly")
        if weighted_metrics and (uses_xla or self.is_replicated):
            raise ValueError(
                "`metrics` must be None where XLA compiles the steps or a "
                "strategy shares them. Received: "
                f"metrics={weighted_metrics}, jit_compile={jit_compile}."
            )
        super().compile(
            optimizer=optimizer,
            weighted_metrics=weighted_metrics,
            # Keras would have XLA draw the masks, which differ then.
            jit_compile=False,
            **kwargs,
        )
        self.uses_xla = uses_xla

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the arguments of `compile`."""
        config = super().get_compile_config()
        return {**config, "jit_compile": self.uses_xla} if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as `get_compile_config` says."""
        # Keras leaves this to models with a `compile` of their own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: None = None,
        *,
        sample_weight: Any | None = None,
        validation_data: Any | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains the model on captions; more arguments are Keras' own.

        Args:
            x: Arrays as `train_step` takes them, or a dataset of such batches.
            y: None, else a `ValueError`: the labels are the tokens themselves.
            sample_weight: float, (batch,), weights of the captions in the loss,
                for arrays; in a dataset the third of a tuple, or an input.
            validation_data: As `x`, or a tuple of `x`, `y` and `sample_weight`.
            **kwargs: Passed on.
        """
        if isinstance(validation_data, tuple):
            parts = keras.utils.unpack_x_y_sample_weight(validation_data)
            validation_data = _pack(*parts)
        x = _pack(x, y, sample_weight)
        return super().fit(x, validation_data=validation_data, **kwargs)

    def evaluate(
        self,
        x: Any = None,
        y: None = None,
        *,
        sample_weight: Any | None = None,
        **kwargs: Any,
    ) -> Any:
        """Measures the model on captions; the arguments are those of `fit`."""
        return super().evaluate(_pack(x, y, sample_weight), **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Masks a batch of captions, fills it, and learns from the masks.

        Args:
            data: The call's inputs without `mask_positions`, alone or in a
                tuple (inputs, None, sample_weight). `sample_weight`, float,
                (batch,), may also be among the inputs; it may be negative, for
                captions that are to become unlikely. A share of a larger batch
                has its captions' places there, `rows`, int32, (batch,), and
                `num_rows`, int32, (), so that it is masked as it would be
                there. A `BimodalFusion` also takes captions that were masked
                and encoded before: `text_states`, float, (batch, slots,
                hidden_dim), of the masked tokens alone, in place of
                `token_ids`, with `mask_positions`, int, (positions,) of the
                flattened batch * slots, and their `labels`, int, (positions,).

        Returns:
            The running `loss` (nats per masked token), `masked_accuracy` and
            what else `compile` asked for.
        """
        if self.uses_xla:
            return training_step.take_compiled_step(self, data)
        return training_step.take_step(self, data)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measures, as `train_step`, on masks that are the same every time."""
        return training_step.measure(self, data)

    def make_train_function(self, force: bool = False) -> None:
        """Makes what `fit` calls at each step, for the replicas if any."""
        if not self.is_replicated:
            super().make_train_function(force)
        elif force or self.train_function is None:
            self.train_function = training_step.replicate(self, training=True)

    def make_test_function(self, force: bool = False) -> None:
        """Makes what `evaluate` calls at each step, for the replicas if any."""
        if not self.is_replicated:
            super().make_test_function(force)
        elif force or self.test_function is None:
            self.test_function = training_step.replicate(self, training=False)

    def _maybe_symbolic_build(self, **kwargs: Any) -> None:
        # Keras' own reads a batch and reduces it, which fails for dictionaries
        # on several workers, only to build what is built from the start here.
        pass

    def predict_masked(
        self,
        inputs: dict[str, Any],
        *,
        training: bool,
        skip_padding: bool = True,
    ) -> dict[str, Any]:
        """As the call, of tokens that were encoded before as well.

        Args:
            inputs: The call's, with flat `mask_positions`; `text_states` in
                place of `token_ids` as `train_step` takes them.
            training: Whether dropout is on. If not, the logits are those of
                `token_logits`, and there are no `concept_logits`.
            skip_padding: Run the text tower at the tokens alone where it has
                no dropout, in shapes that depend on the tokens.
        """
        embedding = inputs[self.image_input]
        if self.image_tower is not None:
            embedding = self.image_tower(embedding, training=training)
        padding_mask = inputs.get("padding_mask")
        states = inputs.get("text_states")
        if states is None:
            encode = partial(self.encode_text, training=training)
            # Dropout in the tower needs the tower's own call.
            if skip_padding and not (training and self.text_tower.dropout):
                encode = partial(encode_without_padding, self.text_tower)
            states = encode(inputs["token_ids"], padding_mask)
        positions = inputs["mask_positions"]
        outputs: dict[str, Any] = {}
        if training:
            states = self.fusion(states, embedding, padding_mask, training=True)
            outputs["logits"] = self._logits_at(states, positions)
            if self.concept_head is not None:
                concepts = self.concept_head(embedding, training=True)
                outputs["concept_logits"] = concepts
        else:
            projected = self.project_image(embedding)
            outputs["logits"] = self._fill(
                states, padding_mask, projected, positions
            )
        if self.length_head is not None:
            lengths = self.length_head(embedding, training=training)
            outputs["length_logits"] = lengths
        return outputs

    # === Files ===

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the model."""
        config = {name: getattr(self, name) for name in _ARGUMENTS}
        # The tower's own output has the shape; the constructor takes one.
        config["image_embedding_shape"] = (
            self.image_embedding_shape if self.image_tower is None else None
        )
        return keras.saving.serialize_keras_object(config)

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "BimodalMaskedLM":
        """Rebuilds the model from its configuration."""
        arguments = keras.saving.deserialize_keras_object(
            config, custom_objects=custom_objects
        )
        return cls(**arguments)

    def save_own_variables(self, store: Any) -> None:
        """Saves the states of random draws, so that a run goes on with them."""
        # Keras leaves them out; dropout would begin anew after a checkpoint.
        super().save_own_variables(store)
        for name, state in self._seed_states().items():
            store[name] = ops.convert_to_numpy(state)

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved, if it is there."""
        states = self._seed_states()
        if set(states) <= set(store.keys()):
            for name, state in states.items():
                state.assign(store[name])

    def _seed_states(self) -> dict[str, keras.Variable]:
        """The state of each random generator, by a name in the file."""
        weights = {id(each) for each in self.weights}
        states = [each for each in self.variables if id(each) not in weights]
        return {f"seed_state_{i}": each for i, each in enumerate(states)}


def _pack(x: Any, y: Any, sample_weight: Any) -> Any:
    """Puts weights among the inputs: without `y` Keras would drop them."""
    training_step.refuse_labels(y)
    return x if sample_weight is None else {**x, "sample_weight": sample_weight}
