"""The training step: a batch is masked, filled, judged and learned from.

It goes one of three ways: plain (`take_step`), compiled by XLA but for the
masks (`take_compiled_step`), or shared by replicas (`replicate`).

Keras' own step under `tf.distribute` clips the gradients of each replica
before it sums them, cannot accumulate gradients, and reduces the logs in a way
that fails on several workers (Keras issue 20585). Here each replica computes
the gradients of its share, their sums go to every replica, and what follows is
done once, outside the replicas, on the sums: clipping, decay, accumulation and
averages are those of one device with the whole batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from bmt_keras.layers import TokenMasking

# The concept loss of a caption is some 40 nats, that of a token some 5, and
# nothing else trains its weights: this keeps it small in what is shown.
_CONCEPT_LOSS_WEIGHT = 0.01


# === Masks ===


def refuse_labels(labels: Any) -> None:
    """Raises a `ValueError` where `fit` is given labels."""
    if labels is not None:
        raise ValueError(
            "`y` must be None: the model masks tokens by itself, and its "
            f"labels are the tokens. Received: y={labels}."
        )


def mask_batch(
    data: Any,
    masking: TokenMasking,
    *,
    training: bool,
    keep_empty: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Masks a batch, unless it was masked and encoded before.

    With `keep_empty` the slots without a masked token stay, so that all shapes
    follow from those of the batch, as XLA needs it.

    Returns:
        The inputs of `BimodalMaskedLM.predict_masked`; and the targets: of the
        masked tokens `labels`, int32, (tokens,), `is_masked`, float32,
        (tokens,), 0 in an empty slot, and `sample_weight`, float32, (tokens,);
        of the captions `caption_weight`, float32, (batch,), or 1.0, and
        `token_ids`, int32, (batch, length), unmasked, or None if masked before.
    """
    batch, labels, weight = keras.utils.unpack_x_y_sample_weight(data)
    refuse_labels(labels)
    inputs = {k: ops.convert_to_tensor(v) for k, v in batch.items()}
    weight = inputs.pop("sample_weight", weight)
    token_ids = inputs.get("token_ids")
    if "text_states" in inputs:
        labels = inputs.pop("labels")
        slots = ops.shape(inputs["text_states"])[1]
        captions = inputs["mask_positions"] // slots
        is_masked = ops.ones_like(labels, "float32")
    else:
        masked = _mask_tokens(inputs, masking, training=training)
        captions, positions, labels, is_masked = _take_slots(
            masked, keep_empty=keep_empty
        )
        # Flat positions, of batch * length: (tokens,)
        starts = captions * ops.shape(token_ids)[1]
        inputs["token_ids"] = masked["token_ids"]
        inputs["mask_positions"] = starts + positions
    token_weight = is_masked
    if weight is not None:
        weight = ops.cast(weight, "float32")
        token_weight = is_masked * tf.gather(weight, captions)
    return inputs, {
        "labels": labels,
        "is_masked": is_masked,
        "sample_weight": token_weight,
        "caption_weight": 1.0 if weight is None else weight,
        "token_ids": token_ids,
    }


def _mask_tokens(
    inputs: dict[str, Any], masking: TokenMasking, *, training: bool
) -> dict[str, Any]:
    """What `masking` gives; takes the places in a larger batch off `inputs`."""
    token_ids, padding_mask = inputs["token_ids"], inputs["padding_mask"]
    rows, num_rows = inputs.pop("rows", None), inputs.pop("num_rows", None)
    if rows is None:
        return masking(token_ids, padding_mask=padding_mask, training=training)
    # The masks of a share are those of its captions in the whole batch.
    shape = num_rows, ops.shape(token_ids)[1]
    noise = masking.draw_noise(shape, training=training)
    noise = {k: ops.take(drawn, rows, axis=0) for k, drawn in noise.items()}
    return masking.mask_tokens(token_ids, noise, padding_mask)


def _take_slots(
    masked: dict[str, Any], *, keep_empty: bool
) -> tuple[Any, Any, Any, Any]:
    """Caption, position, label and 1, or 0 if empty, of slots: (tokens,)."""
    slots = ops.shape(masked["labels"])[1]
    names = "mask_positions", "labels", "sample_weight"
    flat = [ops.reshape(masked[name], (-1,)) for name in names]
    if keep_empty:
        index = tf.range(tf.size(flat[0]))
    else:
        # Half of the slots are empty at random rates.
        index = tf.cast(tf.where(flat[-1] > 0)[:, 0], "int32")
    positions, labels, is_masked = (tf.gather(each, index) for each in flat)
    return index // slots, positions, labels, is_masked


# === Losses ===


def _total_loss(
    model: keras.Model,
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    targets: dict[str, Any],
) -> Any:
    """The loss of a batch, or of a replica's share of one: float32, ().

    Nats of a masked token, and the weighted losses of lengths and concepts.
    """
    cross_entropy = model.token_loss.cross_entropy(
        outputs["logits"], targets["labels"]
    )
    total = ops.sum(cross_entropy * targets["sample_weight"])
    loss = _mean(total, ops.sum(targets["is_masked"]))
    weight = targets["caption_weight"]
    if "length_logits" in outputs:
        sums = sum_length_losses(
            outputs["length_logits"], inputs["padding_mask"], weight
        )
        loss += model.length_loss_weight * _mean(*sums)
    # Captions that were masked before have only the masked tokens.
    if "concept_logits" in outputs and targets["token_ids"] is not None:
        special = list(model.masking.unmaskable_token_ids)
        sums = sum_concept_losses(
            outputs["concept_logits"], targets["token_ids"], special, weight
        )
        loss += _CONCEPT_LOSS_WEIGHT * _mean(*sums)
    return loss


def sum_length_losses(
    length_logits: Any, padding_mask: Any, caption_weight: Any = 1.0
) -> tuple[Any, Any]:
    """How unlikely the captions' lengths are, in nats; and how many there are.

    The captions of an image are neighbouring rows of `padding_mask`, (batch,
    length), and `caption_weight`, (batch,); one of padding alone is no caption.
    `length_logits` are (images, max_caption_tokens + 1).
    """
    num_tokens = ops.sum(padding_mask, axis=-1)
    is_caption = ops.cast(num_tokens > 0, "float32")
    # [CLS] and [SEP] are no part of a caption's length.
    lengths = ops.clip(num_tokens - 2, 0, length_logits.shape[-1] - 1)
    # (images, captions of an image)
    logits = ops.cast(length_logits, "float32")
    lengths = ops.reshape(lengths, (ops.shape(logits)[0], -1))
    log_probs = ops.take_along_axis(ops.log_softmax(logits), lengths, axis=-1)
    log_probs = ops.reshape(log_probs, (-1,)) * is_caption * caption_weight
    return -ops.sum(log_probs), ops.sum(is_caption)


def sum_concept_losses(
    concept_logits: Any,
    token_ids: Any,
    special_token_ids: list[int],
    caption_weight: Any = 1.0,
) -> tuple[Any, Any]:
    """How unlikely it is which tokens the captions hold, as for lengths.

    `concept_logits` are (images, vocabulary_size), `token_ids` (batch, length).
    """
    images, size = ops.shape(concept_logits)
    is_ordinary = ~tf.reduce_any(
        token_ids[..., None] == tf.constant(special_token_ids), axis=-1
    )
    is_caption = tf.cast(tf.reduce_any(is_ordinary, axis=-1), "float32")
    rows, length = ops.shape(token_ids)
    captions = tf.broadcast_to(tf.range(rows)[:, None], (rows, length))
    held = tf.scatter_nd(
        tf.stack([captions, token_ids], axis=-1),  # (batch, length, 2)
        tf.cast(is_ordinary, "int32"),
        (rows, size),
    )
    # (images, captions of an image, vocabulary_size)
    is_held = tf.reshape(tf.cast(held > 0, "float32"), (images, -1, size))
    losses = tf.nn.sigmoid_cross_entropy_with_logits(
        is_held, tf.broadcast_to(concept_logits[:, None], tf.shape(is_held))
    )
    losses = tf.reshape(tf.reduce_sum(losses, axis=-1), (-1,))
    total = tf.reduce_sum(losses * is_caption * caption_weight)
    return total, tf.reduce_sum(is_caption)


def _mean(total: Any, count: Any) -> Any:
    """A mean over the whole batch, or what a replica adds to it."""
    return ops.divide_no_nan(total, _sum_over_replicas(count))


# === Steps ===


def take_step(model: keras.Model, data: Any) -> dict[str, Any]:
    """Learns from a batch: the plain way."""
    inputs, targets = mask_batch(data, model.masking, training=True)
    outputs, gradients, sums = _learn(model, inputs, targets)
    update = partial(_update, model)
    # Where no text tower runs, much of a step is Adam's many small operations,
    # which XLA makes one. The optimizer's variables must be there before.
    is_short = "text_states" in inputs and tf.inside_function()
    if is_short and model.optimizer.built:
        update = tf.function(update, jit_compile=True)
    update(gradients)
    return _show(model, sums, outputs, targets)


def take_compiled_step(model: keras.Model, data: Any) -> dict[str, Any]:
    """Learns from a batch: all but the masks, which would differ, by XLA."""
    inputs, targets = mask_batch(
        data, model.masking, training=True, keep_empty=True
    )

    @tf.function(jit_compile=True)
    def learn(inputs: Any, targets: Any) -> dict[str, Any]:
        # XLA knows no shapes that depend on how many tokens there are.
        _, gradients, sums = _learn(model, inputs, targets, skip_padding=False)
        _update(model, gradients)
        return sums

    return _show(model, learn(inputs, targets))


def measure(model: keras.Model, data: Any) -> dict[str, Any]:
    """Measures loss and accuracy of a batch."""
    outputs, targets, sums = _measure(model, data)
    return _show(model, sums, outputs, targets)


def replicate(
    model: keras.Model, *, training: bool
) -> Callable[[Any], dict[str, Any]]:
    """Makes what `fit` or `evaluate` calls where replicas share a batch."""
    strategy = model.distribute_strategy

    @tf.autograph.experimental.do_not_convert
    def sum_shares(data: Any) -> Any:
        if not training:
            return _sum_over_replicas(([], _measure(model, data)[2]))
        inputs, targets = mask_batch(data, model.masking, training=True)
        return _sum_over_replicas(_learn(model, inputs, targets)[1:])

    @tf.autograph.experimental.do_not_convert
    def step(iterator: Any) -> dict[str, Any]:
        summed = strategy.run(sum_shares, args=(next(iterator),))
        # All replicas hold the same sums.
        gradients, sums = tf.nest.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], summed
        )
        if training:
            _update(model, gradients)
        return _show(model, sums)

    if model.run_eagerly:
        return step
    return tf.function(step, reduce_retracing=True)


def _sum_over_replicas(values: Any) -> Any:
    """Sums tensors over the replicas; they themselves where there is one."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, values)


def _learn(
    model: keras.Model,
    inputs: dict[str, Any],
    targets: dict[str, Any],
    *,
    skip_padding: bool = True,
) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
    """Outputs, gradients and sums of masked captions."""
    with tf.GradientTape() as tape:
        # Its own captions are learned by the logits that wrote them. Without
        # the concept head's log-odds, the rest would learn what they say, too;
        # and the loss of concepts would teach a trained image tower that the
        # tokens of bad samples are in the image.
        outputs = model.predict_masked(
            inputs,
            training=not model.trains_as_it_predicts,
            skip_padding=skip_padding,
        )
        loss = _total_loss(model, inputs, outputs, targets)
        scaled = model.optimizer.scale_loss(loss)
    weights = model.trainable_weights
    pairs = zip(tape.gradient(scaled, weights), weights, strict=True)
    gradients = [
        # A head without a loss has none. And the norm of a sparse one is not
        # that of the rows that it adds up to.
        tf.zeros(weight.shape) if each is None else tf.convert_to_tensor(each)
        for each, weight in pairs
    ]
    return outputs, gradients, _sum_up(outputs, targets, loss)


def _update(model: keras.Model, gradients: list[Any]) -> None:
    pairs = zip(gradients, model.trainable_weights, strict=True)
    model.optimizer.apply_gradients(pairs)


def _measure(
    model: keras.Model, data: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Outputs, targets and sums of a batch."""
    inputs, targets = mask_batch(data, model.masking, training=False)
    outputs = model.predict_masked(inputs, training=False)
    loss = _total_loss(model, inputs, outputs, targets)
    return outputs, targets, _sum_up(outputs, targets, loss)


def _sum_up(outputs: Any, targets: Any, loss: Any) -> dict[str, Any]:
    """What is shown of a step, as sums over its masked tokens."""
    # Keras' argmax passes over the logits six times more, for signed zeros.
    predicted = tf.argmax(outputs["logits"], axis=-1, output_type="int32")
    right = ops.equal(predicted, ops.cast(targets["labels"], "int32"))
    is_masked = targets["is_masked"]
    return {
        "loss": loss,
        "right": ops.sum(ops.cast(right, "float32") * is_masked),
        "tokens": ops.sum(is_masked),
    }


def _show(
    model: keras.Model,
    sums: dict[str, Any],
    outputs: dict[str, Any] | None = None,
    targets: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Updates the metrics, those of `compile` where there are outputs."""
    tokens = sums["tokens"]
    accuracy = ops.divide_no_nan(sums["right"], tokens)
    # Keras has no public name for the loss; its own steps update it, too.
    model._loss_tracker.update_state(sums["loss"], sample_weight=tokens)
    model.accuracy_tracker.update_state(accuracy, sample_weight=tokens)
    if outputs is None or targets is None:
        return model.get_metrics_result()
    return model.compute_metrics(
        None, targets["labels"], outputs["logits"], targets["is_masked"]
    )
