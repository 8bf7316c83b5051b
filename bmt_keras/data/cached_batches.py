"""Batches of masked tokens whose states were computed before."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from bmt_keras.data.batches import TEXT_SIGNATURE, CaptionBatches
from bmt_keras.data.store import ShardedRows


def masked_token_row(hidden_dim: int) -> np.dtype:
    """Type of a masked token as it is kept, with states of this width."""
    # The state first, where its address is aligned.
    return np.dtype(
        [
            ("state", "<f4", (hidden_dim,)),
            ("caption", "<i4"),  # its index
            ("position", "<i4"),  # in the caption
            ("label", "<i4"),  # the token that was masked
        ]
    )


class MaskedStates:
    """The masked tokens of captions under one masking, found by caption.

    Args:
        shards: Rows of type `masked_token_row`, in the captions' order.
        num_captions: Number of all captions, with those in no shard.
    """

    def __init__(self, shards: Sequence[np.ndarray], num_captions: int) -> None:
        captions = np.concatenate([rows["caption"] for rows in shards])
        self._labels = np.concatenate([rows["label"] for rows in shards])
        self._states = ShardedRows([rows["state"] for rows in shards])
        self._counts = np.bincount(captions, minlength=num_captions)
        self._first = np.cumsum(self._counts) - self._counts
        self.hidden_dim = int(self._states.shape[1])

    def gather(self, captions: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the masked tokens of captions: int, (batch,).

        Returns:
            `text_states`, float32, (batch, slots, hidden_dim), zeros after a
            caption's last masked token; `mask_positions`, int32, (tokens,), the
            filled slots of the flattened batch * slots; `labels`, int32,
            (tokens,).
        """
        counts = self._counts[captions]
        # One slot at least, so that no axis is empty.
        slots = max(int(counts.max(initial=0)), 1)
        filled = np.arange(slots) < counts[:, None]  # (batch, slots)
        tokens = (self._first[captions][:, None] + np.arange(slots))[filled]
        states = np.zeros((*filled.shape, self.hidden_dim), np.float32)
        states[filled] = self._states[tokens]
        return {
            "text_states": states,
            "mask_positions": np.flatnonzero(filled).astype(np.int32),
            "labels": self._labels[tokens],
        }


def cached_dataset(
    batches: CaptionBatches,
    maskings: Sequence[MaskedStates | None],
    *,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Gives the batches of `batches.dataset`, masked and encoded.

    Each pass over the captions takes the next masking.

    Args:
        batches: Plans the steps and reads the images.
        maskings: The masked tokens of all captions, once for each masking;
            None for one whose turn does not come.
        start_step: Begin at this step of the run.

    Returns:
        Dictionaries of `text_states` float32 (batch, slots, hidden_dim),
        `mask_positions` int32 (tokens,), `labels` int32 (tokens,),
        `padding_mask` int32 (batch, length) and the image input (batch, ...),
        as `BimodalMaskedLM.train_step` takes them, without end.
    """
    width = next(each for each in maskings if each is not None).hidden_dim

    def gather() -> Iterator[dict[str, np.ndarray]]:
        for planned in batches.plan(start_step):
            states = maskings[planned.epoch % len(maskings)]
            # Only what is read ahead of a run's end is in no masking.
            if states is None:
                return
            batch = batches.gather(planned)
            del batch["token_ids"]
            yield {**batch, **states.gather(planned.captions)}

    return batches.to_dataset(
        gather,
        {
            "padding_mask": TEXT_SIGNATURE["padding_mask"],
            "text_states": tf.TensorSpec((None, None, width), tf.float32),
            "mask_positions": tf.TensorSpec((None,), tf.int32),
            "labels": tf.TensorSpec((None,), tf.int32),
        },
    )
