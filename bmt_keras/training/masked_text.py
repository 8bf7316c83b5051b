"""Captions, masked and run through a frozen ALBERT."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.data.masked_states import MaskedTokens
from bmt_keras.layers import TokenMasking
from bmt_keras.models import BimodalMaskedLM

_BATCH = 64


class MaskedTextEncoder:
    """Masks captions and keeps ALBERT's states of the masked tokens.

    Args:
        model: Its text encoder and masking are read.
        pad_token_id: Token id of padding.
    """

    def __init__(self, model: BimodalMaskedLM, *, pad_token_id: int) -> None:
        """Prepares the encoder's graph, traced at the first call."""
        self._model = model
        self._pad_id = pad_token_id
        self._encode = tf.function(
            self._encode_at,
            input_signature=[tf.TensorSpec((None, None), tf.int32)] * 3,
        )

    def encode(
        self,
        captions: np.ndarray,
        *,
        token_ids: Sequence[Sequence[int]],
        image_ids: np.ndarray,
        seed: int,
        on_progress: Callable[[int], None] | None = None,
    ) -> MaskedTokens:
        """Masks captions once and encodes them.

        Args:
            captions: int, (captions,), which captions.
            token_ids: The token ids of all captions.
            image_ids: int, (all captions,), the image ids of their photos.
            seed: Seed of the masks, which depend on it and on the captions.
            on_progress: Called with the number of captions done.

        Returns:
            The masked tokens.
        """
        masking = TokenMasking.from_config(
            {**self._model.masking.get_config(), "seed": seed}
        )
        # Captions of like length share a batch, so that little is padded.
        order = sorted(captions, key=lambda caption: len(token_ids[caption]))
        parts = []
        for start in range(0, len(order), _BATCH):
            batch = np.array(order[start : start + _BATCH])
            rows = [token_ids[caption] for caption in batch]
            parts.append((batch, *self._encode_batch(rows, masking)))
            if on_progress is not None:
                on_progress(start + len(batch))
        return _sort(parts, image_ids)

    def _encode_batch(
        self, rows: Sequence[Sequence[int]], masking: TokenMasking
    ) -> tuple[np.ndarray, ...]:
        """Rows, positions, labels and states of the masked tokens."""
        shape = (len(rows), max(len(row) for row in rows))
        token_ids = np.full(shape, self._pad_id, np.int32)
        padding_mask = np.zeros(shape, np.int32)
        for i, row in enumerate(rows):
            token_ids[i, : len(row)] = row
            padding_mask[i, : len(row)] = 1
        masked = masking(token_ids, padding_mask=padding_mask, training=True)
        masked = {name: np.asarray(value) for name, value in masked.items()}
        used = np.nonzero(masked["sample_weight"])
        found, position = used[0], masked["mask_positions"][used]
        places = np.stack([found, position], axis=1).astype(np.int32)
        states = self._encode(masked["token_ids"], padding_mask, places)
        return found, position, masked["labels"][used], states.numpy()

    def _encode_at(self, token_ids: Any, padding_mask: Any, places: Any) -> Any:
        states = self._model.encode_text(
            token_ids, padding_mask, training=False
        )
        # (masked tokens, hidden_dim)
        return tf.cast(tf.gather_nd(states, places), tf.float32)


def _sort(
    parts: Sequence[tuple[np.ndarray, ...]], image_ids: np.ndarray
) -> MaskedTokens:
    captions = np.concatenate([batch[row] for batch, row, *_ in parts])
    positions, labels, states = (
        np.concatenate([part[i] for part in parts]) for i in (2, 3, 4)
    )
    order = np.lexsort((positions, captions))
    return MaskedTokens(
        captions=captions[order].astype(np.int32),
        image_ids=image_ids[captions[order]],
        positions=positions[order].astype(np.int32),
        labels=labels[order].astype(np.int32),
        states=states[order],
    )
