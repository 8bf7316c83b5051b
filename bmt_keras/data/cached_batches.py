"""Batches of masked tokens whose states were computed before."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from bmt_keras.data.batch_plan import PlannedBatch
from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.masked_states import MaskedStates
from bmt_keras.data.untuned import without_tuning


def cached_dataset(
    batches: CaptionBatches,
    maskings: Sequence[MaskedStates | None],
    *,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Gives the batches of `batches.dataset`, masked and encoded.

    The captions and photos of each step are those of the live batches; each
    pass over the captions takes the next masking.

    Args:
        batches: Plans the steps and reads the photos.
        maskings: The masked tokens of all captions, once for each masking;
            None for one whose turn does not come.
        start_step: Begin at this step of the run.

    Returns:
        Dictionaries of `text_states` float32 (batch, slots, hidden_dim),
        `mask_positions` int32 (tokens,), `labels` int32 (tokens,),
        `padding_mask` int32 (batch, length) and the image input (batch, ...),
        as `BimodalMaskedLM.train_step` takes them, without end.
    """
    lengths = batches.lengths + 2  # with [CLS] and [SEP]
    width = next(each for each in maskings if each is not None).hidden_dim

    def gather() -> Iterator[dict[str, np.ndarray]]:
        for planned in batches.plan.from_step(start_step):
            states = maskings[planned.epoch % len(maskings)]
            # Only what is read ahead of a run's end is in no masking.
            if states is None:
                return
            yield {
                **_gather(states, planned, lengths),
                **batches.gather_photos(planned),
            }

    dataset = tf.data.Dataset.from_generator(
        gather,
        output_signature={
            "text_states": tf.TensorSpec((None, None, width), tf.float32),
            "mask_positions": tf.TensorSpec((None,), tf.int32),
            "labels": tf.TensorSpec((None,), tf.int32),
            "padding_mask": tf.TensorSpec((None, None), tf.int32),
            **batches.photo_signature,
        },
    )
    return without_tuning(dataset.map(batches.photos_to_float).prefetch(4))


def _gather(
    states: MaskedStates, planned: PlannedBatch, lengths: np.ndarray
) -> dict[str, np.ndarray]:
    text_states, mask_positions, labels = states.gather(planned.captions)
    is_token = np.arange(planned.length) < lengths[planned.captions][:, None]
    return {
        "text_states": text_states,
        "mask_positions": mask_positions,
        "labels": labels,
        "padding_mask": is_token.astype(np.int32),
    }
