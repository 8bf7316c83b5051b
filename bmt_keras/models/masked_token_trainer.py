"""The steps by which a model learns to fill masked tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from bmt_keras.layers import (
    ConceptHead,
    LengthHead,
    MaskedTokenLoss,
    TokenMasking,
)
from bmt_keras.models.masked_batch import (
    CaptionObjective,
    mask_batch,
    sum_concept_losses,
    sum_length_losses,
)
from bmt_keras.models.replicas import (
    make_replicated_function,
    sum_over_replicas,
)
from bmt_keras.models.seed_states import load_seed_states, save_seed_states

# A caption's concepts are a loss of some 40 nats beside 5 of a token, of
# weights that nothing else trains: this keeps it small in what is shown.
_CONCEPT_LOSS_WEIGHT = 0.01


class MaskedTokenTrainer(keras.Model):
    """A model that masks tokens by itself, so that it fits whole captions.

    What it is made of is its subclass' matter: that sets the attributes below
    and gives `predict_masked`.

    Args:
        *args: As `keras.Model` takes them.
        **kwargs: As well.

    Attributes:
        masking: Draws the masks.
        token_loss: The loss of the masked tokens.
        length_head: Predicts the captions' lengths; None for no such loss.
        concept_head: Predicts the captions' tokens; None for no such loss.
        length_loss_weight: Weight of that loss beside the tokens'.
        objective: What else than people's captions to learn from; None for
            these.
    """

    masking: TokenMasking
    token_loss: MaskedTokenLoss
    length_head: LengthHead | None
    concept_head: ConceptHead | None
    length_loss_weight: float
    jit_compile: Any  # Keras'
    train_function: Any
    test_function: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Builds the model, and the metrics of its steps."""
        super().__init__(*args, **kwargs)
        self.objective: CaptionObjective | None = None
        self.accuracy_tracker = keras.metrics.Mean(name="masked_accuracy")
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self._replicates = tf.distribute.has_strategy()

    def predict_masked(
        self, inputs: dict[str, Any], *, training: bool
    ) -> dict[str, Any]:
        """Fills the masks of a batch.

        Args:
            inputs: From `mask_batch`.
            training: Whether dropout is on.

        Returns:
            Dictionary of `logits`, float, (masked tokens, vocabulary_size),
            and with a length head `length_logits`, float, (photos,
            max_caption_tokens + 1); in training with a concept head also
            `concept_logits`, float, (photos, vocabulary_size).
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `predict_masked`."
        )

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running metrics of `fit` and `evaluate`."""
        return [self.loss_tracker, self.accuracy_tracker]

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
        inputs, targets = self._mask(data, training=True)

        def learn(inputs: Any, targets: Any) -> dict[str, Any]:
            gradients, figures = self._learn(inputs, targets)
            # Where ALBERT does not run, much of a step is the optimizer's.
            self._update(gradients, compiled="text_states" in inputs)
            return figures

        if self.has_fixed_shapes and tf.inside_function():
            learn = tf.function(learn, jit_compile=True)
        return self._update_metrics(learn(inputs, targets))

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measures loss and accuracy on masks that are the same every time.

        Args:
            data: As for `train_step`.

        Returns:
            The running `loss` and `masked_accuracy`.
        """
        return self._update_metrics(*self._measure(data))

    def make_train_function(self, force: bool = False) -> None:
        """Makes what `fit` calls at each step, for the replicas if any.

        Where XLA is asked for, it compiles what follows the masks: these it
        would draw otherwise.
        """
        if not self._replicates:
            with self._without_xla():
                super().make_train_function(force)
        elif force or self.train_function is None:
            self.train_function = make_replicated_function(
                self.distribute_strategy,
                self._learn_share,
                self._end_step,
                run_eagerly=self.run_eagerly,
            )

    def make_test_function(self, force: bool = False) -> None:
        """Makes what `evaluate` calls at each step, for the replicas if any.

        XLA compiles none of it.
        """
        if not self._replicates:
            with self._without_xla():
                super().make_test_function(force)
        elif force or self.test_function is None:
            self.test_function = make_replicated_function(
                self.distribute_strategy,
                self._measure,
                self._update_metrics,
                run_eagerly=self.run_eagerly,
            )

    def save_own_variables(self, store: Any) -> None:
        """Saves the states of random draws, which Keras leaves out.

        So a run that goes on from a checkpoint drops what it would have
        dropped.
        """
        super().save_own_variables(store)
        save_seed_states(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved; a model itself has nothing."""
        load_seed_states(self, store)

    def total_loss(self, inputs: Any, outputs: Any, targets: Any) -> Any:
        """The loss of a replica's share of a batch.

        Args:
            inputs: As for `predict_masked`.
            outputs: What it gives.
            targets: From `mask_batch`.

        Returns:
            float32, (): nats a masked token, and beside it the losses of the
            lengths and of the concepts that are predicted.
        """
        # Smoothing has no meaning for a caption that is to become unlikely.
        cross_entropy = self.token_loss.cross_entropy(
            outputs["logits"],
            targets["labels"],
            label_smoothing=None if self.objective is None else 0.0,
        )
        total = ops.sum(cross_entropy * targets["sample_weight"])
        # A replica's share of the means over the whole batch.
        loss = _share_of_mean(total, ops.sum(targets["is_masked"]))
        if self.length_head is not None:
            loss += self.length_loss_weight * _share_of_mean(
                *sum_length_losses(
                    outputs["length_logits"],
                    inputs["padding_mask"],
                    targets["caption_weight"],
                )
            )
        if "concept_logits" in outputs:
            loss += _CONCEPT_LOSS_WEIGHT * _share_of_mean(
                *sum_concept_losses(
                    outputs["concept_logits"],
                    targets["token_ids"],
                    [
                        *self.masking.special_token_ids,
                        self.masking.mask_token_id,
                    ],
                )
            )
        return loss

    def _maybe_symbolic_build(self, **kwargs: Any) -> None:
        """Leaves out what Keras does before it fits or evaluates replicas.

        It would read a batch and reduce it, which fails for dictionaries on
        several workers, only to build what here is built from the start.
        """

    @property
    def has_fixed_shapes(self) -> bool:
        """Whether a training step's shapes follow from its batch's, for XLA."""
        return bool(self.compiled and self.jit_compile)

    @contextmanager
    def _without_xla(self) -> Iterator[None]:
        """Has Keras make functions that XLA does not compile as a whole."""
        asked, self.jit_compile = self.jit_compile, False
        try:
            yield
        finally:
            self.jit_compile = asked

    def _mask(self, data: Any, *, training: bool) -> tuple[Any, Any]:
        """Inputs and targets of a step."""
        if training and self.objective is not None:
            data = self.objective.draw(data, self.optimizer.iterations)
        return mask_batch(
            data,
            self.masking,
            training=training,
            keep_empty=training and self.has_fixed_shapes,
        )

    def _learn_share(self, data: Any) -> tuple[list[Any], dict[str, Any]]:
        """Gradients and figures of a replica's share of a batch."""
        return self._learn(*self._mask(data, training=True))

    def _learn(
        self, inputs: dict[str, Any], targets: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Gradients and figures of masked captions."""
        with tf.GradientTape() as tape:
            outputs, loss = self._judge(inputs, targets)
            scaled = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        gradients = [
            # An objective leaves the concepts as they are. The norm of a
            # sparse one is not that of the rows that it adds up to.
            tf.zeros(weight.shape)
            if each is None
            else tf.convert_to_tensor(each)
            for each, weight in zip(
                tape.gradient(scaled, weights), weights, strict=True
            )
        ]
        return gradients, _figures(outputs, targets, loss)

    def _judge(
        self, inputs: dict[str, Any], targets: dict[str, Any]
    ) -> tuple[dict[str, Any], Any]:
        """What a training step predicts, and its loss."""
        if self.objective is not None:
            # What the model drew without dropout is judged so, too.
            outputs = self.predict_masked(inputs, training=False)
            return outputs, self.total_loss(inputs, outputs, targets)
        outputs = self.predict_masked(inputs, training=True)
        loss = self.total_loss(inputs, outputs, targets)
        return outputs, loss

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
        inputs, targets = self._mask(data, training=False)
        outputs = self.predict_masked(inputs, training=False)
        loss = self.total_loss(inputs, outputs, targets)
        return (_figures(outputs, targets, loss),)

    def _update_metrics(self, figures: dict[str, Any]) -> dict[str, Any]:
        tokens = figures["tokens"]
        accuracy = ops.divide_no_nan(figures["right"], tokens)
        self.loss_tracker.update_state(figures["loss"], sample_weight=tokens)
        self.accuracy_tracker.update_state(accuracy, sample_weight=tokens)
        return {metric.name: metric.result() for metric in self.metrics}


def _share_of_mean(total: Any, count: Any) -> Any:
    """What a replica adds to a mean over the whole batch."""
    return ops.divide_no_nan(total, sum_over_replicas(count))


def _figures(outputs: Any, targets: Any, loss: Any) -> dict[str, Any]:
    """What a step tells of itself, as sums over its masked tokens."""
    # Keras' argmax passes over the logits six times more, for signed zeros.
    predicted = tf.argmax(outputs["logits"], axis=-1, output_type="int32")
    right = ops.equal(predicted, ops.cast(targets["labels"], "int32"))
    is_masked = targets["is_masked"]
    return {
        "loss": loss,
        "right": ops.sum(ops.cast(right, "float32") * is_masked),
        "tokens": ops.sum(is_masked),
    }
