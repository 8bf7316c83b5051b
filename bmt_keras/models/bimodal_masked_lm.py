"""The masked language model that sees a photo."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from bmt_keras.layers import (
    BimodalFusion,
    CrossAttentionFusion,
    LengthHead,
    MaskedTokenHead,
    MaskedTokenLoss,
    TokenMasking,
)
from bmt_keras.models.blank_rows import compute_blank_once
from bmt_keras.models.lora import LoraFactors
from bmt_keras.models.masked_batch import (
    CaptionObjective,
    mask_batch,
    sum_length_losses,
)
from bmt_keras.models.replicas import (
    make_replicated_function,
    sum_over_replicas,
)
from bmt_keras.models.unpadded_albert import encode_without_padding


@keras.saving.register_keras_serializable(package="bmt_keras")
class BimodalMaskedLM(keras.Model):
    """Fills the masked tokens of a photo's caption.

    A functional model: ALBERT's states of the tokens and the photo's embedding
    are fused, and a head tied to ALBERT's token embedding gives the
    vocabulary's logits at the asked positions. Its `train_step` masks tokens
    by itself, so that it is fitted on whole captions.

    Args:
        text_encoder: A `keras_nlp.models.AlbertBackbone`.
        fusion: A `BimodalFusion` as wide as the token embedding, or a
            `CrossAttentionFusion`.
        masking: A `TokenMasking`, used by `fit` and `evaluate`.
        image_embedding_shape: Shape of a photo's embedding, without batch.
            Taken from `image_encoder` if that is given.
        image_encoder: A model from pixels (batch, height, width, 3) to
            embeddings, trained along; None where embeddings are the input.
        max_caption_length: Give the model a head that predicts how many tokens
            a caption has, up to so many; None for no such head.
        label_smoothing: Label smoothing of the token loss.
        length_loss_weight: Weight of the length head's loss beside the token
            loss.
        lora_rank: Train changes of this rank to the text encoder's queries and
            values, and nothing else of it; None for no LoRA.

    Call arguments:
        inputs: Dictionary of
            `token_ids`: int32, (batch, length);
            `padding_mask`: int32, (batch, length), 1 token, 0 padding;
            `mask_positions`: int32, (batch, positions);
            `images`: float, (photos, height, width, 3) in [0, 255], or
            `image_embedding`: float, (photos, ...). `batch` is a multiple of
            `photos`, and the captions of a photo are neighbouring rows.

    Returns:
        Dictionary of `logits`, float, (batch, positions, vocabulary_size), and
        with a length head `length_logits`, float, (photos,
        max_caption_length + 1).
    """

    train_function: Any  # Keras'
    test_function: Any

    def __init__(
        self,
        text_encoder: keras.Model,
        fusion: BimodalFusion | CrossAttentionFusion,
        *,
        masking: TokenMasking,
        image_embedding_shape: tuple[int, ...] | None = None,
        image_encoder: keras.Model | None = None,
        max_caption_length: int | None = None,
        label_smoothing: float = 0.0,
        length_loss_weight: float = 0.1,
        lora_rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Assembles the functional model."""
        if (image_encoder is None) == (image_embedding_shape is None):
            raise ValueError(
                "Give either `image_encoder` or `image_embedding_shape`. "
                f"Received: image_encoder={image_encoder}, "
                f"image_embedding_shape={image_embedding_shape}."
            )
        # === Layers ===
        self.text_encoder = text_encoder
        self.lora_rank = lora_rank
        self.lora = None
        if lora_rank is not None:
            self.lora = LoraFactors(text_encoder, lora_rank, name="lora")
        # Nothing reads ALBERT's pooled output, so nothing would train it.
        text_encoder.pooled_dense.trainable = False
        self.fusion = fusion
        self.masking = masking
        self.image_encoder = image_encoder
        projects = isinstance(fusion, BimodalFusion)
        self.head = MaskedTokenHead(
            text_encoder.token_embedding,
            hidden_units=None if projects else text_encoder.embedding_dim,
            name="masked_token_head",
        )
        self.length_head = None
        if max_caption_length is not None:
            self.length_head = LengthHead(
                max_caption_length,
                hidden_units=text_encoder.hidden_dim,
                name="length_head",
            )
        self.token_loss = MaskedTokenLoss(
            label_smoothing=label_smoothing, name="masked_token_loss"
        )
        # Both run beside the functional graph and hold no weights.
        self.masking.build((None, None))
        self.token_loss.build((None, None, text_encoder.vocabulary_size))

        # === Functional Model ===
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
        positions = keras.Input((None,), dtype="int32", name="mask_positions")
        if image_encoder is None:
            image = keras.Input(image_embedding_shape, name="image_embedding")
            embedding = image
        else:
            image = keras.Input(image_encoder.input.shape[1:], name="images")
            embedding = image_encoder(image)
        outputs = {
            "logits": self.token_logits(
                token_ids, padding_mask, embedding, mask_positions=positions
            )
        }
        if self.length_head is not None:
            outputs["length_logits"] = self.length_head(embedding)
        inputs = (token_ids, padding_mask, positions, image)
        super().__init__(
            inputs={each.name: each for each in inputs},
            outputs=outputs,
            **kwargs,
        )

        # === Config ===
        self.image_embedding_shape = tuple(embedding.shape[1:])
        self.max_caption_length = max_caption_length
        self.label_smoothing = label_smoothing
        self.length_loss_weight = length_loss_weight
        self.objective: CaptionObjective | None = None
        self.accuracy_tracker = keras.metrics.Mean(name="masked_accuracy")
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self._replicates = tf.distribute.has_strategy()

    @property
    def image_input(self) -> str:
        """Name of the input that takes the photo."""
        return "image_embedding" if self.image_encoder is None else "images"

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running metrics of `fit` and `evaluate`."""
        return [self.loss_tracker, self.accuracy_tracker]

    def token_logits(
        self,
        token_ids: Any,
        padding_mask: Any,
        image_embedding: Any,
        *,
        mask_positions: Any | None = None,
        projected_image: Any | None = None,
        skip_padding: bool = False,
        training: bool | None = None,
    ) -> Any:
        """The vocabulary's logits, from an image embedding.

        Args:
            token_ids: int32, (batch, length).
            padding_mask: int32, (batch, length).
            image_embedding: float, (photos, ...); a divisor of the batch.
            mask_positions: int32, (batch, positions), or (positions,) of the
                flattened batch * length; None for all positions.
            projected_image: From `project_image`: read instead of the
                embedding.
            skip_padding: Run ALBERT without dropout at the tokens alone, and
                once for equal captions without a word: the same logits at
                tokens in less time, any numbers at padding.
            training: Whether dropout is on.

        Returns:
            float, (batch, positions or length, vocabulary_size), or
            (positions, vocabulary_size) where the positions are flat.
        """
        if skip_padding:
            masking = self.masking
            states = compute_blank_once(
                partial(encode_without_padding, self.text_encoder),
                token_ids,
                padding_mask,
                special_token_ids=[
                    *masking.special_token_ids,
                    masking.mask_token_id,
                ],
            )
        else:
            states = self.encode_text(
                token_ids, padding_mask, training=training
            )
        if projected_image is not None:
            states = self.fusion.attend(states, projected_image, padding_mask)
        else:
            states = self._fuse(
                states, padding_mask, image_embedding, training=training
            )
        return self._logits_at(states, mask_positions)

    def encode_text(
        self, token_ids: Any, padding_mask: Any, *, training: bool | None = None
    ) -> Any:
        """ALBERT's states of the tokens, before they meet the photo.

        Args:
            token_ids: int32, (batch, length).
            padding_mask: int32, (batch, length).
            training: Whether dropout is on.

        Returns:
            float, (batch, length, hidden_dim).
        """
        return self.text_encoder(
            {
                "token_ids": token_ids,
                "padding_mask": padding_mask,
                "segment_ids": ops.zeros_like(token_ids),
            },
            training=training,
        )["sequence_output"]

    def project_image(self, image_embedding: Any) -> Any | None:
        """What tokens read of a photo, for many calls of `token_logits`.

        Args:
            image_embedding: float, (photos, ...).

        Returns:
            The keys and values of `CrossAttentionFusion.project_image`; None
            for a fusion that has no such step.
        """
        if isinstance(self.fusion, BimodalFusion):
            return None
        return self.fusion.project_image(image_embedding)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Masks a batch of captions, fills it, and learns from the masks.

        Args:
            data: The call's inputs without `mask_positions`, alone or as the
                first of a tuple. `caption_weight`, float, (batch,), may be
                among them: the weights of the captions in the loss; and
                `image_ids`, int, (photos,), for an objective. A
                `BimodalFusion` also takes captions that were masked and
                encoded before: `text_states`, float, (batch, slots,
                hidden_dim), of the masked tokens alone, in place of
                `token_ids`, with `mask_positions`, int, (positions,) of the
                flattened batch * slots, and their `labels`, int, (positions,).

        Returns:
            The running `loss` (nats a masked token) and `masked_accuracy`.
        """
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        gradients, figures = self._learn(data)
        # Where ALBERT does not run, much of a step goes into the optimizer.
        self._update(gradients, compiled="text_states" in batch)
        return self._update_metrics(figures)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measures loss and accuracy on masks that are the same every time.

        Args:
            data: As for `train_step`.

        Returns:
            The running `loss` and `masked_accuracy`.
        """
        return self._update_metrics(*self._measure(data))

    def make_train_function(self, force: bool = False) -> None:
        """Makes what `fit` calls at each step, for the replicas if any."""
        if not self._replicates:
            super().make_train_function(force)
        elif force or self.train_function is None:
            self.train_function = make_replicated_function(
                self.distribute_strategy,
                self._learn,
                self._end_step,
                run_eagerly=self.run_eagerly,
            )

    def make_test_function(self, force: bool = False) -> None:
        """Makes what `evaluate` calls at each step, for the replicas if any."""
        if not self._replicates:
            super().make_test_function(force)
        elif force or self.test_function is None:
            self.test_function = make_replicated_function(
                self.distribute_strategy,
                self._measure,
                self._update_metrics,
                run_eagerly=self.run_eagerly,
            )

    def _maybe_symbolic_build(self, **kwargs: Any) -> None:
        """Leaves out what Keras does before it fits or evaluates replicas.

        It would read a batch and reduce it, which fails for dictionaries on
        several workers, only to build what here is built from the start.
        """

    def _learn(self, data: Any) -> tuple[list[Any], dict[str, Any]]:
        """Gradients and figures of a replica's share of a batch."""
        if self.objective is not None:
            data = self.objective.draw(data, self.optimizer.iterations)
        inputs, targets = mask_batch(data, self.masking, training=True)
        with tf.GradientTape() as tape:
            # Captions that the model drew without dropout are judged so, too.
            outputs = self._predict_masked(
                inputs, training=self.objective is None
            )
            loss = self._total_loss(inputs, outputs, targets)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_weights)
        # The norm of a sparse one is not that of the rows that it adds up to.
        gradients = [tf.convert_to_tensor(each) for each in gradients]
        return gradients, _figures(outputs, targets, loss)

    def _update(self, gradients: list[Any], *, compiled: bool = False) -> None:
        """Changes the weights; XLA makes Adam's many small operations one."""

        def apply(gradients: list[Any]) -> None:
            pairs = zip(gradients, self.trainable_weights, strict=True)
            self.optimizer.apply_gradients(pairs)

        if compiled and tf.inside_function() and self.optimizer.built:
            apply = tf.function(apply, jit_compile=True)
        apply(gradients)

    def _end_step(
        self, gradients: list[Any], figures: dict[str, Any]
    ) -> dict[str, Any]:
        """What follows once on the sums over replicas."""
        self._update(gradients)
        return self._update_metrics(figures)

    def _measure(self, data: Any) -> tuple[dict[str, Any]]:
        """Figures of a replica's share of a batch."""
        inputs, targets = mask_batch(data, self.masking, training=False)
        outputs = self._predict_masked(inputs, training=False)
        loss = self._total_loss(inputs, outputs, targets)
        return (_figures(outputs, targets, loss),)

    def _predict_masked(
        self, inputs: dict[str, Any], *, training: bool
    ) -> dict[str, Any]:
        embedding = inputs[self.image_input]
        if self.image_encoder is not None:
            embedding = self.image_encoder(embedding, training=training)
        padding_mask = inputs.get("padding_mask")
        states = inputs.get("text_states")
        if states is None:
            states = self._encode_tokens(
                inputs["token_ids"], padding_mask, training=training
            )
        states = self._fuse(states, padding_mask, embedding, training=training)
        logits = self._logits_at(states, inputs["mask_positions"])
        outputs = {"logits": logits}
        if self.length_head is not None:
            outputs["length_logits"] = self.length_head(
                embedding, training=training
            )
        return outputs

    def _encode_tokens(
        self, token_ids: Any, padding_mask: Any, *, training: bool
    ) -> Any:
        """As `encode_text`, in less time unless there is dropout."""
        if training and self.text_encoder.dropout:
            return self.encode_text(token_ids, padding_mask, training=True)
        return encode_without_padding(
            self.text_encoder, token_ids, padding_mask
        )

    def _fuse(
        self,
        states: Any,
        padding_mask: Any,
        image_embedding: Any,
        *,
        training: bool | None,
    ) -> Any:
        options = {}
        if not isinstance(self.fusion, BimodalFusion):
            options["padding_mask"] = padding_mask
        return self.fusion(
            states, image_embedding, training=training, **options
        )

    def _logits_at(self, states: Any, mask_positions: Any | None) -> Any:
        if mask_positions is None or len(mask_positions.shape) == 2:
            return self.head(states, mask_positions=mask_positions)
        states = ops.reshape(states, (1, -1, states.shape[-1]))
        return self.head(states, mask_positions=mask_positions[None])[0]

    def _total_loss(self, inputs: Any, outputs: Any, targets: Any) -> Any:
        # Smoothing has no meaning for a caption that is to become unlikely.
        cross_entropy = self.token_loss.cross_entropy(
            outputs["logits"],
            targets["labels"],
            label_smoothing=None if self.objective is None else 0.0,
        )
        total = ops.sum(cross_entropy * targets["sample_weight"])
        count = ops.cast(ops.size(cross_entropy), "float32")
        if self.length_head is None:
            return ops.divide_no_nan(total, sum_over_replicas(count))
        length_total, captions = sum_length_losses(
            outputs["length_logits"],
            inputs["padding_mask"],
            targets["caption_weight"],
        )
        # A replica's share of the means over the whole batch.
        count, captions = sum_over_replicas((count, captions))
        length_loss = ops.divide_no_nan(length_total, captions)
        return (
            ops.divide_no_nan(total, count)
            + self.length_loss_weight * length_loss
        )

    def _update_metrics(self, figures: dict[str, Any]) -> dict[str, Any]:
        tokens = figures["tokens"]
        accuracy = ops.divide_no_nan(figures["right"], tokens)
        self.loss_tracker.update_state(figures["loss"], sample_weight=tokens)
        self.accuracy_tracker.update_state(accuracy, sample_weight=tokens)
        return {metric.name: metric.result() for metric in self.metrics}

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the model."""
        serialize = keras.saving.serialize_keras_object
        encoder = self.image_encoder
        shape = None if encoder is not None else self.image_embedding_shape
        return {
            "name": self.name,
            "trainable": self.trainable,
            "text_encoder": serialize(self.text_encoder),
            "fusion": serialize(self.fusion),
            "masking": serialize(self.masking),
            "image_encoder": None if encoder is None else serialize(encoder),
            "image_embedding_shape": shape,
            "max_caption_length": self.max_caption_length,
            "label_smoothing": self.label_smoothing,
            "length_loss_weight": self.length_loss_weight,
            "lora_rank": self.lora_rank,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "BimodalMaskedLM":
        """Rebuilds the model from its configuration."""
        config = dict(config)
        for name in ("text_encoder", "fusion", "masking", "image_encoder"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        if config["image_embedding_shape"] is not None:
            config["image_embedding_shape"] = tuple(
                config["image_embedding_shape"]
            )
        return cls(**config)


def _figures(outputs: Any, targets: Any, loss: Any) -> dict[str, Any]:
    """What a step tells of itself, as sums over its masked tokens."""
    predicted = ops.cast(ops.argmax(outputs["logits"], axis=-1), "int32")
    right = ops.equal(predicted, ops.cast(targets["labels"], "int32"))
    return {
        "loss": loss,
        "right": ops.sum(ops.cast(right, "float32")),
        "tokens": ops.cast(ops.size(right), "float32"),
    }
