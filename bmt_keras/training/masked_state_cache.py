"""What a frozen text tower makes of masked captions, computed once and kept.

A run's epochs are cut into rounds of `redraw_epochs`, each with maskings of
its own: one for each pass over the captions in turn, `cached_maskings` in all.
Which caption is masked how depends on the seed, the round and the captions
alone, so that a run that goes on after a stop sees what it would have seen.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.cached_batches import (
    MaskedStates,
    cached_dataset,
    masked_token_row,
)
from bmt_keras.data.store import Shard, open_store
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.layers import TokenMasking
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.models.image_towers import fingerprint_weights
from bmt_keras.settings import Settings

_SHARD_SIZE = 2048  # captions: what a killed run loses at most
_BATCH_SIZE = 64

Progress = Callable[[], AbstractContextManager[Callable[[str, int, int], None]]]


class MaskedStateCache:
    """Gives a run's batches with the text side computed before.

    Args:
        batches: The run's live batches.
        model: The model, whose text tower is frozen.
        settings: Number of maskings, epochs between draws and seed are read.
        tokenizer: The tokenizer of the captions.
        steps_per_epoch: Steps of an epoch of the run.
        folder: Where the states are kept, those of one round at a time.
        show_progress: A context that gives a function of a masking's name,
            captions done and captions in all.
    """

    def __init__(
        self,
        batches: CaptionBatches,
        model: BimodalMaskedLM,
        *,
        settings: Settings,
        tokenizer: CaptionTokenizer,
        steps_per_epoch: int,
        folder: Path,
        show_progress: Progress | None = None,
    ) -> None:
        self._batches = batches
        self._row = masked_token_row(model.text_tower.hidden_dim)
        self._encoder = _MaskedTextEncoder(model, batches)
        self._maskings = settings.batches.cached_maskings
        self._seed = settings.optimization.seed
        self._total_steps = settings.optimization.epochs * steps_per_epoch
        redraw_epochs = settings.batches.redraw_epochs
        self._steps_of_round = steps_per_epoch * (
            redraw_epochs or settings.optimization.epochs
        )
        self._folder = folder
        self._show_progress = show_progress or _show_nothing
        masking = model.masking.get_config()
        shares = ("rate", "mask_share", "random_share")
        # All that the states depend on: others are refused.
        self._settings = {
            "text_weights": fingerprint_weights(model.text_tower),
            "vocabulary": hashlib.sha256(tokenizer.proto).hexdigest()[:16],
            "captions": _fingerprint(batches.token_ids),
            "masking": {name: masking[name] for name in shares},
            "cached_maskings": self._maskings,
            "redraw_epochs": redraw_epochs,
            "seed": self._seed,
        }

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """Gives batches as `cached_dataset`, until the end of the step's round.

        Raises:
            InputError: The folder holds states of other weights, captions or
                masks.
        """
        number = start_step // self._steps_of_round
        for old in self._folder.glob("round-*"):
            if old.name != f"round-{number:04d}":
                shutil.rmtree(old)
        maskings = [
            self._prepare(number, masking, captions) if len(captions) else None
            for masking, captions in enumerate(self._plan(number))
        ]
        return cached_dataset(self._batches, maskings, start_step=start_step)

    def _plan(self, number: int) -> list[np.ndarray]:
        """The captions that a round reads under each masking."""
        first = number * self._steps_of_round
        last = min(first + self._steps_of_round, self._total_steps)
        read = np.zeros((self._maskings, len(self._batches)), bool)
        plan = self._batches.plan(first)
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
            with self._show_progress() as on_progress:
                for shard in shards:
                    parts = []
                    seed = [self._seed, number, masking, shard.number]
                    for count, part in self._encoder.encode(shard.items, seed):
                        parts.append(part)
                        done += count
                        on_progress(name, done, total)
                    rows = np.concatenate(parts)
                    # `MaskedStates` finds a caption's tokens by their order.
                    order = np.lexsort((rows["position"], rows["caption"]))
                    shard.write([rows[order]])

        shards = open_store(
            self._folder / f"round-{number:04d}" / f"masking-{masking:02d}",
            captions.tolist(),
            row=self._row,
            settings={
                **self._settings,
                "read_captions": _fingerprint([captions]),
                "draw": [number, masking],
            },
            shard_size=_SHARD_SIZE,
            compute=compute,
        )
        return MaskedStates(shards, len(self._batches))


class _MaskedTextEncoder:
    """Masks captions and gives the text tower's states of the masked tokens."""

    def __init__(self, model: BimodalMaskedLM, batches: CaptionBatches) -> None:
        self._model = model
        self._batches = batches
        self._encode = tf.function(
            self._encode_at,
            input_signature=[tf.TensorSpec((None, None), tf.int32)] * 3,
        )

    def encode(
        self, captions: Sequence[int], seed: Sequence[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Masks captions; gives each batch's size and its masked tokens."""
        (state,) = np.random.SeedSequence(seed).generate_state(1)
        masking = TokenMasking.from_config(
            {**self._model.masking.get_config(), "seed": int(state)}
        )
        # Captions of like length share a batch, so that little is padded.
        lengths = self._batches.lengths[captions]
        order = np.array(captions)[np.argsort(lengths, kind="stable")]
        for start in range(0, len(order), _BATCH_SIZE):
            batch = order[start : start + _BATCH_SIZE]
            yield len(batch), self._encode_batch(batch, masking)

    def _encode_batch(
        self, captions: np.ndarray, masking: TokenMasking
    ) -> np.ndarray:
        longest = int(self._batches.lengths[captions].max()) + 2  # both ends
        token_ids, padding_mask = self._batches.pad(captions, longest)
        masked = masking(token_ids, padding_mask=padding_mask, training=True)
        masked = {name: np.asarray(value) for name, value in masked.items()}
        used = np.nonzero(masked["sample_weight"])
        # The masked tokens' rows and positions: (tokens, 2).
        index = np.stack([used[0], masked["mask_positions"][used]], axis=1)
        states = self._encode(
            masked["token_ids"], padding_mask, index.astype(np.int32)
        ).numpy()
        rows = np.empty(len(states), masked_token_row(states.shape[1]))
        rows["state"] = states
        rows["caption"] = captions[index[:, 0]]
        rows["position"] = index[:, 1]
        rows["label"] = masked["labels"][used]
        return rows

    def _encode_at(self, token_ids: Any, padding_mask: Any, index: Any) -> Any:
        states = self._model.encode_text(
            token_ids, padding_mask, training=False
        )
        # (masked tokens, hidden_dim)
        return tf.cast(tf.gather_nd(states, index), tf.float32)


def _show_nothing() -> AbstractContextManager[Callable[..., None]]:
    return nullcontext(lambda *_: None)


def _fingerprint(numbers: Sequence[Sequence[int] | np.ndarray]) -> str:
    digest = hashlib.sha256()
    for row in numbers:
        digest.update(np.array([len(row), *row], np.int64).tobytes())
    return digest.hexdigest()[:16]
