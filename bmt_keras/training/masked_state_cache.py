"""What a frozen text tower makes of masked captions, computed once and kept.

A run's epochs are cut into rounds of `redraw_epochs`, each with maskings of
its own: one for each pass over the captions in turn, `cached_maskings` in all.
Which caption is masked how depends on the seed, the round and the captions
alone, so that a run that goes on after a stop sees what it would have seen.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.data.batches import TEXT_SIGNATURE, CaptionBatches
from bmt_keras.data.store import Shard, ShardedRows, open_store
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.layers import TokenMasking
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.models.image_towers import fingerprint_weights
from bmt_keras.progress import show_progress
from bmt_keras.settings import Settings

_SHARD_SIZE = 2048  # captions: what a killed run loses at most
_BATCH_SIZE = 64


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

    def gather(self, captions: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the masked tokens of captions: int, (batch,).

        Returns:
            `text_states`, float32, (batch, slots, hidden_dim), zeros after a
            caption's last masked token; `mask_positions`, the filled slots of
            the flattened batch * slots, and `labels`, int32, (tokens,) both.
        """
        counts = self._counts[captions]
        # One slot at least, so that no axis is empty.
        slots = max(int(counts.max(initial=0)), 1)
        filled = np.arange(slots) < counts[:, None]  # (batch, slots)
        tokens = (self._first[captions][:, None] + np.arange(slots))[filled]
        states = np.zeros((*filled.shape, self._states.shape[1]), np.float32)
        states[filled] = self._states[tokens]
        return {
            "text_states": states,
            "mask_positions": np.flatnonzero(filled).astype(np.int32),
            "labels": self._labels[tokens],
        }


@dataclass(eq=False)
class MaskedStateCache:
    """Gives a run's batches with the text side computed before."""

    batches: CaptionBatches  # the live ones
    model: BimodalMaskedLM  # its text tower is frozen
    settings: Settings
    tokenizer: CaptionTokenizer
    folder: Path  # of the states, those of one round at a time

    def __post_init__(self) -> None:
        """Finds out all that the states depend on."""
        batches, model = self.batches, self.model
        steps = self.settings.optimization
        steps_per_epoch = steps.steps_per_epoch or batches.steps_per_epoch
        redraw_epochs = self.settings.batches.redraw_epochs
        self._row = masked_token_row(model.text_tower.hidden_dim)
        self._maskings = self.settings.batches.cached_maskings
        self._total_steps = steps.epochs * steps_per_epoch
        self._steps_of_round = (redraw_epochs or steps.epochs) * steps_per_epoch
        self._encode = tf.function(
            self._encode_at,
            input_signature=[tf.TensorSpec((None, None), tf.int32)] * 3,
        )
        masking = model.masking.get_config()
        shares = ("rate", "mask_share", "random_share")
        # States of anything else are refused.
        self._manifest = {
            "text_weights": fingerprint_weights(model.text_tower),
            "vocabulary": hashlib.sha256(self.tokenizer.proto).hexdigest()[:16],
            "captions": _fingerprint(batches.token_ids),
            "masking": {name: masking[name] for name in shares},
            "cached_maskings": self._maskings,
            "redraw_epochs": redraw_epochs,
            "seed": steps.seed,
        }

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """Gives the batches of `CaptionBatches.dataset`, masked and encoded.

        They hold for the step's round; each pass takes the next masking.

        Returns:
            Dictionaries of what `MaskedStates.gather` gives, `padding_mask` and
            the image input, without end.

        Raises:
            InputError: The states are of other weights, captions or masks.
        """
        number = start_step // self._steps_of_round
        for old in self.folder.glob("round-*"):
            if old.name != f"round-{number:04d}":
                shutil.rmtree(old)
        maskings = [
            self._prepare(number, masking, captions) if len(captions) else None
            for masking, captions in enumerate(self._plan(number))
        ]

        def gather() -> Iterator[dict[str, np.ndarray]]:
            for planned in self.batches.plan(start_step):
                states = maskings[planned.epoch % self._maskings]
                # Only what is read ahead of a run's end is in no masking.
                if states is None:
                    return
                batch = self.batches.gather(planned)
                del batch["token_ids"]
                yield {**batch, **states.gather(planned.captions)}

        width = self.model.text_tower.hidden_dim
        signature = {
            "padding_mask": TEXT_SIGNATURE["padding_mask"],
            "text_states": tf.TensorSpec((None, None, width), tf.float32),
            "mask_positions": tf.TensorSpec((None,), tf.int32),
            "labels": tf.TensorSpec((None,), tf.int32),
        }
        return self.batches.to_dataset(gather, signature)

    def _plan(self, number: int) -> list[np.ndarray]:
        """The captions that a round reads under each masking."""
        first = number * self._steps_of_round
        last = min(first + self._steps_of_round, self._total_steps)
        read = np.zeros((self._maskings, len(self.batches)), bool)
        plan = self.batches.plan(first)
        epoch = -1
        for planned in islice(plan, max(last - first, 0)):
            # Later epochs read nothing new.
            if planned.epoch != epoch and read.all():
                break
            epoch = planned.epoch
            read[epoch % self._maskings, planned.captions] = True
        return [np.flatnonzero(row) for row in read]

    def _prepare(
        self, number: int, masking: int, captions: np.ndarray
    ) -> MaskedStates:
        def compute(shards: Sequence[Shard]) -> None:
            name = f"masking {masking + 1} of {self._maskings}"
            done, total = 0, sum(len(shard.items) for shard in shards)
            with show_progress("Running the text tower") as on_progress:
                for shard in shards:
                    draw = [number, masking, shard.number]
                    rows = np.concatenate([*self._mask(shard.items, draw)])
                    # `MaskedStates` finds a caption's tokens by their order.
                    order = np.lexsort((rows["position"], rows["caption"]))
                    shard.write([rows[order]])
                    done += len(shard.items)
                    on_progress(name, done, total)

        shards = open_store(
            self.folder / f"round-{number:04d}" / f"masking-{masking:02d}",
            captions.tolist(),
            row=self._row,
            settings={
                **self._manifest,
                "read_captions": _fingerprint([captions]),
                "draw": [number, masking],
            },
            shard_size=_SHARD_SIZE,
            compute=compute,
        )
        return MaskedStates(shards, len(self.batches))

    def _mask(
        self, captions: Sequence[int], draw: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """Masks captions; gives each batch's masked tokens."""
        seed = [self.settings.optimization.seed, *draw]
        (state,) = np.random.SeedSequence(seed).generate_state(1)
        masking = TokenMasking.from_config(
            {**self.model.masking.get_config(), "seed": int(state)}
        )
        # Captions of like length share a batch, so that little is padded.
        lengths = self.batches.lengths[captions]
        order = np.array(captions)[np.argsort(lengths, kind="stable")]
        starts = range(_BATCH_SIZE, len(order), _BATCH_SIZE)
        for batch in np.split(order, starts):
            yield self._encode_batch(batch, masking)

    def _encode_batch(
        self, captions: np.ndarray, masking: TokenMasking
    ) -> np.ndarray:
        longest = int(self.batches.lengths[captions].max()) + 2  # both ends
        token_ids, padding_mask = self.batches.pad(captions, longest)
        masked = masking(token_ids, padding_mask=padding_mask, training=True)
        masked = {name: np.asarray(value) for name, value in masked.items()}
        used = np.nonzero(masked["sample_weight"])
        # The masked tokens' rows and positions: (tokens, 2).
        index = np.stack([used[0], masked["mask_positions"][used]], axis=1)
        states = self._encode(
            masked["token_ids"], padding_mask, index.astype(np.int32)
        ).numpy()
        rows = np.empty(len(states), self._row)
        rows["state"] = states
        rows["caption"] = captions[index[:, 0]]
        rows["position"] = index[:, 1]
        rows["label"] = masked["labels"][used]
        return rows

    def _encode_at(self, token_ids: Any, padding_mask: Any, index: Any) -> Any:
        states = self.model.encode_text(token_ids, padding_mask, training=False)
        # (masked tokens, hidden_dim)
        return tf.cast(tf.gather_nd(states, index), tf.float32)


def _fingerprint(numbers: Sequence[Sequence[int] | np.ndarray]) -> str:
    digest = hashlib.sha256()
    for row in numbers:
        digest.update(np.array([len(row), *row], np.int64).tobytes())
    return digest.hexdigest()[:16]
