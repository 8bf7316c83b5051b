"""Batches of captions with their photos' features."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.data.batch_plan import BatchPlan, PlannedBatch
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.features import ImageFeatures
from bmt_keras.data.shares import Replicas
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.data.untuned import without_tuning
from bmt_keras.errors import InputError


class CaptionBatches:
    """Endless seeded batches of photos with captions.

    Captions of like length share a batch, padded to the bucket's bound, so
    that little is padded and few shapes occur; without buckets, captions of
    all lengths share a batch, padded to its longest. Captions of a photo may
    stay together in groups, so that a model reads the photo once for all of
    them. The order of a step depends on the seed and the step alone: a run
    that resumes at a step sees what it would have seen.

    Args:
        photos: Photos with captions; those without features are left out.
        features: Their features.
        tokenizer: Turns captions into token ids.
        image_input: The model's input that takes the features, `"images"` or
            `"image_embedding"`.
        batch_size: Captions in a batch; a bucket's last batch may hold fewer.
        sequence_length: Longest sequence in tokens, `[CLS]` and `[SEP]` included.
        bucket_width: Buckets end at multiples of so many tokens; 0 for none.
        captions_per_image: Keep the first so many captions of a photo; 0 for
            all.
        group_size: Captions of a photo that stay together, those of like
            length; the last group of a photo may have fewer.
        caption_weights: Weights of a photo's captions by image id; None for 1.
        with_image_ids: Give the photos' `image_ids`, too, int64, (photos,).
        mirror: Turn the features of half of the photos, others in each epoch,
            left to right: pixels, or a grid (height, width, channels) of a
            model that has learnt to see mirrored photos alike.
        shuffle_buffer: Draw each caption from a buffer of so many, as
            `tf.data.Dataset.shuffle` does; 0 for all of them.
        shuffle: False keeps one order for all epochs (validation).
        seed: Seed of the order.

    Attributes:
        plan: Which captions share a batch, and in what order.
        steps_per_epoch: Batches of one pass over all captions.

    Raises:
        InputError: `mirror` is asked for features without a width.
    """

    def __init__(
        self,
        photos: Sequence[CaptionedImage],
        features: ImageFeatures,
        *,
        tokenizer: CaptionTokenizer,
        image_input: str,
        batch_size: int,
        sequence_length: int,
        bucket_width: int = 4,
        captions_per_image: int = 0,
        group_size: int = 1,
        caption_weights: Mapping[int, Sequence[float]] | None = None,
        with_image_ids: bool = False,
        mirror: bool = False,
        shuffle_buffer: int = 0,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        """Tokenises all captions."""
        photos = [p for p in photos if p.image_id in features.rows]
        kept = [p.captions[: captions_per_image or None] for p in photos]
        self._features = features.array
        self._token_ids = tokenizer.encode(
            [caption for captions in kept for caption in captions],
            sequence_length=sequence_length,
        )
        self._caption_image_ids = np.repeat(
            np.array([photo.image_id for photo in photos], np.int64),
            [len(captions) for captions in kept],
        )
        self._weights = None
        if caption_weights is not None:
            each = [
                caption_weights[photo.image_id][: len(captions)]
                for photo, captions in zip(photos, kept, strict=True)
            ]
            self._weights = np.concatenate(each).astype(np.float32)
        self._image_ids = None
        if with_image_ids:
            self._image_ids = np.zeros(len(features.array), np.int64)
            for photo in photos:
                row = features.rows[photo.image_id]
                self._image_ids[row] = photo.image_id
        self._pad_id = tokenizer.pad_token_id
        self._image_input = image_input
        if mirror and len(features.array.shape) != 4:
            raise InputError(
                "`mirror` needs photos as pixels or grids of cells (height, "
                "width, channels). Received features of shape "
                f"{tuple(features.array.shape[1:])}."
            )
        self.plan = BatchPlan(
            [features.rows[photo.image_id] for photo in photos],
            [len(captions) for captions in kept],
            [len(ids) for ids in self._token_ids],
            batch_size=batch_size,
            sequence_length=sequence_length,
            bucket_width=bucket_width,
            group_size=group_size,
            mirror=mirror,
            shuffle_buffer=shuffle_buffer,
            shuffle=shuffle,
            seed=seed,
        )
        self.steps_per_epoch = self.plan.steps_per_epoch

    def __len__(self) -> int:
        """Number of (photo, caption) pairs."""
        return len(self._token_ids)

    @property
    def token_ids(self) -> list[list[int]]:
        """The token ids of each caption, `[CLS]` and `[SEP]` included."""
        return self._token_ids

    @property
    def caption_image_ids(self) -> np.ndarray:
        """int64, (pairs,): the image id of each caption's photo."""
        return self._caption_image_ids

    @property
    def pad_token_id(self) -> int:
        """The token id of padding."""
        return self._pad_id

    @property
    def lengths(self) -> np.ndarray:
        """int, (pairs,): tokens of each caption, special ones not counted."""
        return np.array([len(ids) - 2 for ids in self._token_ids])

    def count_tokens(self, vocabulary_size: int) -> np.ndarray:
        """Counts each token in the captions: int, (vocabulary_size,)."""
        flat = np.concatenate([ids[1:-1] for ids in self._token_ids])
        return np.bincount(flat.astype(np.int64), minlength=vocabulary_size)

    def share_of_captions(self, vocabulary_size: int) -> np.ndarray:
        """Share of the captions that hold each token.

        Args:
            vocabulary_size: Number of tokens.

        Returns:
            float32, (vocabulary_size,); special tokens are in none.
        """
        each = [np.unique(ids[1:-1]) for ids in self._token_ids]
        flat = np.concatenate(each).astype(np.int64)
        counts = np.bincount(flat, minlength=vocabulary_size)
        return (counts / len(each)).astype(np.float32)

    def dataset(
        self, start_step: int = 0, *, replicas: Replicas | None = None
    ) -> tf.data.Dataset:
        """Gives batches without end, as `fit` takes them.

        Args:
            start_step: Begin at this step of the run.
            replicas: Give the shares of these, one after the other, instead
                of whole batches.

        Returns:
            Dictionaries of `token_ids` int32 (batch, length), `padding_mask`
            int32 (batch, length) and the image input (photos, ...); where
            captions have weights also `caption_weight` float32 (batch,). The
            captions of a photo are neighbouring rows. Shares have the `rows`
            int32 (batch,) and `num_rows` int32 () that `TokenMasking` takes.
        """
        return self.dataset_of(
            lambda: self.plan.from_step(start_step), replicas=replicas
        )

    def dataset_of(
        self,
        plan: Callable[[], Iterable[PlannedBatch]],
        *,
        replicas: Replicas | None = None,
    ) -> tf.data.Dataset:
        """Gives planned batches, as `dataset` does.

        Args:
            plan: Gives the plan anew for each pass over the dataset.
            replicas: As for `dataset`.

        Returns:
            As `dataset`, as many as are planned.
        """
        signature = {
            "token_ids": tf.TensorSpec((None, None), tf.int32),
            "padding_mask": tf.TensorSpec((None, None), tf.int32),
            **self.photo_signature,
        }
        if replicas is not None:
            signature["rows"] = tf.TensorSpec((None,), tf.int32)
            signature["num_rows"] = tf.TensorSpec((), tf.int32)

        def gather() -> Iterator[dict[str, Any]]:
            for planned in plan():
                shares = replicas.split(planned) if replicas else (planned,)
                yield from map(self.gather, shares)

        dataset = tf.data.Dataset.from_generator(
            gather, output_signature=signature
        )
        return without_tuning(dataset.map(self.photos_to_float).prefetch(4))

    def gather(self, planned: PlannedBatch) -> dict[str, Any]:
        """Reads a planned batch, as `dataset` gives it but for dtypes."""
        share = planned.share
        shape = (len(planned.captions), planned.length)
        token_ids = np.full(shape, self._pad_id, np.int32)
        padding_mask = np.zeros(shape, np.int32)
        captions = planned.captions[: share.num_captions if share else None]
        for row, caption in enumerate(captions):
            ids = self._token_ids[caption]
            token_ids[row, : len(ids)] = ids
            padding_mask[row, : len(ids)] = 1
        batch = {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            **self.gather_photos(planned),
        }
        if share is None:
            return batch
        return {**batch, "rows": share.rows, "num_rows": share.num_rows}

    @property
    def photo_signature(self) -> dict[str, tf.TensorSpec]:
        """What `gather_photos` gives."""
        shape = (None, *self._features.shape[1:])
        dtype = tf.as_dtype(self._features.dtype)
        signature = {self._image_input: tf.TensorSpec(shape, dtype)}
        if self._weights is not None:
            signature["caption_weight"] = tf.TensorSpec((None,), tf.float32)
        if self._image_ids is not None:
            signature["image_ids"] = tf.TensorSpec((None,), tf.int64)
        return signature

    def gather_photos(self, planned: PlannedBatch) -> dict[str, np.ndarray]:
        """Reads all of a planned batch but its tokens.

        Args:
            planned: The batch.

        Returns:
            The photos' features in the dtype in which they are kept, and the
            captions' weights and the photos' ids where `dataset` gives them.
        """
        features = self._features[planned.photo_rows]
        if planned.is_turned.any():
            turned = planned.is_turned
            features[turned] = features[turned, :, ::-1]
        batch = {self._image_input: features}
        if self._weights is not None:
            batch["caption_weight"] = self._weights[planned.captions]
        if self._image_ids is not None:
            batch["image_ids"] = self._image_ids[planned.photo_rows]
        return batch

    def photos_to_float(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        """Casts a batch's features to float32, in TensorFlow ops."""
        image = tf.cast(batch[self._image_input], tf.float32)
        return {**batch, self._image_input: image}
