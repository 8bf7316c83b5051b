"""What a frozen ALBERT makes of masked captions, computed once and kept.

A run's epochs are cut into rounds of `redraw_epochs`, each with maskings of
its own: one for each pass over the captions in turn, `cached_maskings` in all.
Which caption is masked how depends on the seed, the round and the captions
alone, so that a run that goes on after a stop sees what it would have seen.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.atomic import write_atomically
from bmt_keras.data.batches import CaptionBatches
from bmt_keras.data.cached_batches import cached_dataset
from bmt_keras.data.masked_states import (
    MaskedStates,
    MaskedTokens,
    read_shard,
    write_shard,
)
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.models.image_towers import fingerprint_weights
from bmt_keras.settings import Settings
from bmt_keras.training.masked_text import MaskedTextEncoder

_LOGGER = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_VERSION = 1
_SHARD = 2048  # captions: what a killed run loses at most

Progress = Callable[[], AbstractContextManager[Callable[[str, int, int], None]]]


class TextCache:
    """Gives a run's batches with the text side computed before.

    Args:
        batches: The run's live batches.
        model: Its text encoder, which is frozen, and its masking are used.
        settings: Number of maskings, epochs between draws and seed are read.
        tokenizer: The tokenizer of the captions.
        steps_per_epoch: Steps of an epoch of the run.
        folder: Where the states are kept, those of one round at a time.
        show_progress: Shows how far ALBERT has come: a context that gives a
            function of a masking's name, captions done and captions in all.

    Raises:
        InputError: The folder holds states of other weights, captions or
            masks.
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
        """Writes the manifest, or checks the one that is there."""
        self._batches = batches
        self._hidden_dim = model.text_tower.hidden_dim
        self._encoder = MaskedTextEncoder(
            model, pad_token_id=tokenizer.pad_token_id
        )
        self._maskings = settings.batches.cached_maskings
        self._seed = settings.optimization.seed
        self._total_steps = settings.optimization.epochs * steps_per_epoch
        epochs_of_round = (
            settings.batches.redraw_epochs or settings.optimization.epochs
        )
        self._steps_of_round = epochs_of_round * steps_per_epoch
        self._folder = folder
        self._show_progress: Callable[[], AbstractContextManager[Any]]
        self._show_progress = show_progress or nullcontext
        masking = model.masking.get_config()
        _claim(
            folder,
            {
                "version": _VERSION,
                "text_weights": fingerprint_weights(model.text_tower),
                "vocabulary": hashlib.sha256(tokenizer.proto).hexdigest()[:16],
                "captions": _fingerprint_captions(batches),
                "masking": {
                    name: masking[name]
                    for name in ("rate", "mask_share", "random_share")
                },
                "cached_maskings": settings.batches.cached_maskings,
                "redraw_epochs": settings.batches.redraw_epochs,
                "seed": settings.optimization.seed,
            },
        )

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """Gives the batches of a round, after computing what is missing.

        Args:
            start_step: Begin at this step of the run.

        Returns:
            As `cached_dataset`; the batches after the round's end are not to
            be used.
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
        plan = self._batches.plan.from_step(first)
        epoch = -1
        for planned in islice(plan, max(last - first, 0)):
            if planned.epoch != epoch and read.all():
                break
            epoch = planned.epoch
            read[epoch % self._maskings, planned.captions] = True
        return [np.flatnonzero(row) for row in read]

    def _prepare(
        self, number: int, masking: int, captions: np.ndarray
    ) -> MaskedStates:
        """Opens the shards of a masking, computing those that are missing."""
        folder = self._folder / f"round-{number:04d}" / f"masking-{masking:02d}"
        for partial in folder.glob(".*"):
            partial.unlink()  # left behind by a killed run
        lot = f"masking {masking + 1} of {self._maskings}"
        shards = []
        with self._show_progress() as on_progress:
            for shard, start in enumerate(range(0, len(captions), _SHARD)):
                shards.append(
                    self._open_shard(
                        folder / f"shard-{shard:05d}",
                        captions[start : start + _SHARD],
                        seed=[self._seed, number, masking, shard],
                        on_progress=_count(
                            on_progress, lot, start, len(captions)
                        ),
                    )
                )
        return MaskedStates(shards, len(self._batches))

    def _open_shard(
        self,
        stem: Path,
        captions: np.ndarray,
        *,
        seed: list[int],
        on_progress: Callable[[int], None] | None,
    ) -> MaskedTokens:
        try:
            found = read_shard(stem, captions, self._hidden_dim)
        except ValueError as err:
            _LOGGER.warning("%s; it is computed again.", err)
            found = None
        if found is not None:
            return found
        tokens = self._encoder.encode(
            captions,
            token_ids=self._batches.token_ids,
            image_ids=self._batches.caption_image_ids,
            seed=int(np.random.SeedSequence(seed).generate_state(1)[0]),
            on_progress=on_progress,
        )
        return write_shard(stem, tokens, captions)


def _claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Writes a new folder's manifest, or checks that it is the wanted one."""
    path = folder / _MANIFEST
    if not path.exists() and not any(folder.glob("round-*")):
        with write_atomically(path) as file:
            json.dump(wanted, file, indent=2)
        return
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as err:
        raise InputError(
            f"{path}: expected the manifest of masked captions' states, found "
            "none that is sound; delete the folder, and it is computed anew."
        ) from err
    for key, value in wanted.items():
        if found.get(key) != value:
            raise InputError(
                f"{folder}: the states of masked captions were computed with "
                f"something else: `{key}` is {found.get(key)!r} there, "
                f"expected {value!r}; delete the folder, and they are "
                "computed anew."
            )


def _fingerprint_captions(batches: CaptionBatches) -> str:
    digest = hashlib.sha256()
    for image_id, ids in zip(
        batches.caption_image_ids, batches.token_ids, strict=True
    ):
        digest.update(np.array([image_id, len(ids), *ids], np.int64).tobytes())
    return digest.hexdigest()[:16]


def _count(
    on_progress: Callable[[str, int, int], None] | None,
    lot: str,
    before: int,
    total: int,
) -> Callable[[int], None] | None:
    if on_progress is None:
        return None
    return lambda done: on_progress(lot, before + done, total)
