"""Batches of captions with their photos' features."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from bmt_keras.data.coco import Photo
from bmt_keras.data.photo_features import PhotoFeatures
from bmt_keras.data.tokenizer import CaptionTokenizer


class CaptionBatches:
    """Endless seeded batches of (photo, caption) pairs.

    Captions of like length share a batch, padded to the bucket's bound, so
    that little is padded and few shapes occur; without buckets, captions of
    all lengths share a batch, padded to its longest. The order of a step
    depends on the seed and the step alone: a run that resumes at a step sees
    what it would have seen.

    Args:
        photos: Photos with captions; those without features are left out.
        features: Their features.
        tokenizer: Turns captions into token ids.
        image_input: The model's input that takes the features, `"images"` or
            `"image_embedding"`.
        batch_size: Captions in a batch; a bucket's last batch may hold fewer.
        max_length: Longest sequence in tokens, `[CLS]` and `[SEP]` included.
        bucket_width: Buckets end at multiples of so many tokens; 0 for none.
        captions_per_photo: Keep the first so many captions of a photo; 0 for
            all.
        shuffle_buffer: Draw each caption from a buffer of so many, as
            `tf.data.Dataset.shuffle` does; 0 for all of them.
        shuffle: False keeps one order for all epochs (validation).
        seed: Seed of the order.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        features: PhotoFeatures,
        *,
        tokenizer: CaptionTokenizer,
        image_input: str,
        batch_size: int,
        max_length: int,
        bucket_width: int = 4,
        captions_per_photo: int = 0,
        shuffle_buffer: int = 0,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        """Tokenises all captions."""
        pairs = [
            (features.rows[photo.image_id], caption)
            for photo in photos
            if photo.image_id in features.rows
            for caption in photo.captions[: captions_per_photo or None]
        ]
        self._features = features.array
        self._rows = np.array([row for row, _ in pairs])
        self._token_ids = tokenizer.encode(
            [caption for _, caption in pairs], max_length=max_length
        )
        self._pad_id = tokenizer.pad_id
        self._image_input = image_input
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._shuffle_buffer = shuffle_buffer
        self._seed = seed
        lengths = np.array([len(ids) for ids in self._token_ids])
        bounds = -(-lengths // max(bucket_width, 1)) * max(bucket_width, 1)
        self._bounds = np.minimum(bounds, max_length)
        self._buckets = [np.arange(len(lengths))]
        if bucket_width:
            self._buckets = [
                np.flatnonzero(self._bounds == bound)
                for bound in np.unique(self._bounds)
            ]
        self.steps_per_epoch = sum(
            -(-len(bucket) // batch_size) for bucket in self._buckets
        )

    def __len__(self) -> int:
        """Number of (photo, caption) pairs."""
        return len(self._token_ids)

    @property
    def lengths(self) -> np.ndarray:
        """int, (pairs,): tokens of each caption, special ones not counted."""
        return np.array([len(ids) - 2 for ids in self._token_ids])

    def plan_epoch(self, epoch: int) -> list[np.ndarray]:
        """Draws an epoch's batches.

        Args:
            epoch: Number of the epoch, from 0.

        Returns:
            The pairs' indices of each batch.
        """
        number = epoch if self._shuffle else 0
        rng = np.random.default_rng([self._seed, number])
        batches = []
        for bucket in self._buckets:
            members = _shuffle(bucket, self._shuffle_buffer, rng)
            starts = range(0, len(members), self._batch_size)
            batches += [members[s : s + self._batch_size] for s in starts]
        if len(self._buckets) == 1:
            return batches
        return [batches[i] for i in rng.permutation(len(batches))]

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """Gives batches without end, as `fit` takes them.

        Args:
            start_step: Begin at this step of the run.

        Returns:
            Dictionaries of `token_ids` int32 (batch, length), `padding_mask`
            int32 (batch, length) and the image input (batch, ...).
        """
        shape = (None, *self._features.shape[1:])
        dtype = tf.as_dtype(self._features.dtype)
        signature = {
            "token_ids": tf.TensorSpec((None, None), tf.int32),
            "padding_mask": tf.TensorSpec((None, None), tf.int32),
            self._image_input: tf.TensorSpec(shape, dtype),
        }
        dataset = tf.data.Dataset.from_generator(
            lambda: self._batches_from(start_step), output_signature=signature
        )
        return dataset.map(self._to_float).prefetch(4)

    def _batches_from(self, step: int) -> Iterator[dict[str, np.ndarray]]:
        epoch, skip = divmod(step, self.steps_per_epoch)
        while True:
            for members in self.plan_epoch(epoch)[skip:]:
                yield self._gather(members)
            epoch, skip = epoch + 1, 0

    def _gather(self, members: np.ndarray) -> dict[str, np.ndarray]:
        shape = (len(members), int(self._bounds[members].max()))
        token_ids = np.full(shape, self._pad_id, np.int32)
        padding_mask = np.zeros(shape, np.int32)
        for row, member in enumerate(members):
            ids = self._token_ids[member]
            token_ids[row, : len(ids)] = ids
            padding_mask[row, : len(ids)] = 1
        return {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            self._image_input: self._features[self._rows[members]],
        }

    def _to_float(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = tf.cast(batch[self._image_input], tf.float32)
        return {**batch, self._image_input: image}


def _shuffle(
    members: np.ndarray, buffer_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Shuffles, each time drawing from the next `buffer_size` left over."""
    if not 0 < buffer_size < len(members):
        return rng.permutation(members)
    buffer = list(members[:buffer_size])
    shuffled = []
    for member in members[buffer_size:]:
        place = rng.integers(buffer_size)
        shuffled.append(buffer[place])
        buffer[place] = member
    return np.array([*shuffled, *rng.permutation(buffer)])
