"""Batches of captions with their images' features."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.features import ImageFeatures
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.data.untuned import without_tuning
from bmt_keras.errors import InputError

TEXT_SIGNATURE = {
    "token_ids": tf.TensorSpec((None, None), tf.int32),
    "padding_mask": tf.TensorSpec((None, None), tf.int32),
}
# Mirroring draws from a stream of its own: it does not change the order.
_MIRROR_SEED = 1


@dataclass(frozen=True)
class PlannedBatch:
    """The captions that a step learns from, and the images that they are of."""

    epoch: int  # number of the pass over all captions, from 0
    captions: np.ndarray  # int, (batch,), the captions' indices; -1 for a blank
    image_rows: np.ndarray  # int, (images,), rows of the features
    is_mirrored: np.ndarray  # bool, (images,)
    length: int  # tokens to which the captions are padded
    # Of a share alone: where its captions stand in the whole batch, int32,
    # (batch,), any place for a blank; and the size of the whole batch.
    rows: np.ndarray | None = None
    num_rows: int = 0


@dataclass(frozen=True)
class Replicas:
    """The replicas that a process reads for.

    Shares are alike in shape: where the images of a batch cannot be dealt out
    evenly, blank captions of an image that is there anyway fill the last ones.
    The captions of an image's group stay together.
    """

    first: int  # number of the first replica of the process
    local: int  # replicas of the process
    total: int  # replicas of all processes

    def split(self, planned: PlannedBatch) -> Iterator[PlannedBatch]:
        """Gives the share of each replica of the process in turn."""
        num_groups = len(planned.image_rows)
        # Rounded up: the last shares are filled with blanks.
        size = -(-num_groups // self.total)
        captions = planned.captions.reshape(num_groups, -1)
        rows = np.arange(captions.size, dtype=np.int32).reshape(captions.shape)
        for replica in range(self.first, self.first + self.local):
            groups = np.arange(replica * size, (replica + 1) * size)
            is_blank = groups >= num_groups
            # A blank stands with the image of the last group.
            groups = np.minimum(groups, num_groups - 1)
            yield replace(
                planned,
                captions=np.where(
                    is_blank[:, None], -1, captions[groups]
                ).ravel(),
                image_rows=planned.image_rows[groups],
                is_mirrored=planned.is_mirrored[groups],
                rows=rows[groups].ravel(),
                num_rows=captions.size,
            )


class CaptionBatches:
    """Endless seeded batches of images with captions.

    Captions of like length share a batch, padded to the bucket's bound, so
    that little is padded and few shapes occur; without buckets, captions of
    all lengths share a batch, padded to its longest. Captions of an image may
    stay together in groups, so that a model reads the image once for all of
    them. The order of a step depends on the seed and the step alone: a run
    that resumes at a step sees what it would have seen.

    Args:
        images: Images with captions; those without features are left out.
        features: Their features.
        tokenizer: Turns captions into token ids.
        image_input: Name of their input, `"images"` or `"image_embedding"`.
        batch_size: Captions in a batch; a bucket's last batch may hold fewer.
        sequence_length: Most tokens, `[CLS]` and `[SEP]` included.
        bucket_width: Buckets end at multiples of this many tokens; 0 for none.
        captions_per_image: Keep this many of an image's captions; 0 for all.
        group_size: Captions of an image that stay together, those of like
            length; the last group of an image may have fewer.
        mirror: Turn the features of half of the images, others in each epoch,
            left to right: pixels, or a grid (height, width, channels) of a
            model that has learnt to see mirrored images alike.
        shuffle_buffer: Draw each caption from a buffer of this size, as
            `tf.data.Dataset.shuffle` does; 0 for all of them.
        shuffle: False keeps one order for all epochs (validation).
        seed: Seed of the order.

    Attributes:
        steps_per_epoch: Batches of one pass over all captions.
        token_ids: The token ids of each caption, `[CLS]` and `[SEP]` included.
        lengths: int, (captions,), tokens of each, special ones not counted.
        caption_image_ids: int64, (captions,), image id of each caption.

    Raises:
        InputError: `mirror` is asked for features without a width.
    """

    def __init__(
        self,
        images: Sequence[CaptionedImage],
        features: ImageFeatures,
        *,
        tokenizer: CaptionTokenizer,
        image_input: str,
        batch_size: int,
        sequence_length: int,
        bucket_width: int = 4,
        captions_per_image: int = 0,
        group_size: int = 1,
        mirror: bool = False,
        shuffle_buffer: int = 0,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        if mirror and len(features.array.shape) != 4:
            raise InputError(
                "`mirror` needs photos as pixels or grids of cells (height, "
                "width, channels). Received features of shape "
                f"{tuple(features.array.shape[1:])}."
            )
        images = [each for each in images if each.image_id in features.rows]
        kept = [each.captions[: captions_per_image or None] for each in images]
        self._features = features.array
        self._image_input = image_input
        self._pad_token_id = tokenizer.pad_token_id
        self._batch_size = batch_size
        self._mirror = mirror
        self._shuffle_buffer = shuffle_buffer
        self._shuffle = shuffle
        self._seed = seed
        self.token_ids = tokenizer.encode(
            [caption for captions in kept for caption in captions],
            sequence_length=sequence_length,
        )
        lengths = np.array([len(ids) for ids in self.token_ids])
        self.lengths = lengths - 2  # [CLS] and [SEP]
        counts = [len(captions) for captions in kept]
        image_ids = np.array([each.image_id for each in images], np.int64)
        self.caption_image_ids = np.repeat(image_ids, counts)
        image_rows = np.array([features.rows[i] for i in image_ids.tolist()])
        # The indices of each group's captions, and their image's row.
        self._groups = _group_captions(counts, lengths, group_size)
        firsts = [group[0] for group in self._groups]
        self._rows = np.repeat(image_rows, counts)[firsts]
        longest = np.array([lengths[group].max() for group in self._groups])
        width = max(bucket_width, 1)  # without buckets: each length is a bound
        # The length to which each group is padded: (groups,).
        self._bounds = np.minimum(-(-longest // width) * width, sequence_length)
        # Groups that may share a batch are of like length, and of one size: a
        # batch has equally many captions of each image.
        sizes = np.array([len(group) for group in self._groups])
        keys = np.stack([sizes, self._bounds * (bucket_width > 0)], axis=-1)
        self._buckets = [
            np.flatnonzero((keys == key).all(axis=-1))
            for key in np.unique(keys, axis=0)
        ]
        self.steps_per_epoch = len(self._draw_epoch(0))

    def __len__(self) -> int:
        """Number of captions."""
        return len(self.token_ids)

    def count_tokens(self, vocabulary_size: int) -> np.ndarray:
        """Counts each token in the captions: int, (vocabulary_size,)."""
        # Without the ends: neither is ever predicted.
        flat = np.concatenate([ids[1:-1] for ids in self.token_ids])
        return np.bincount(flat.astype(np.int64), minlength=vocabulary_size)

    def share_of_captions(self, vocabulary_size: int) -> np.ndarray:
        """Share of captions with each token: float32, (vocabulary_size,)."""
        each = [np.unique(ids[1:-1]) for ids in self.token_ids]
        flat = np.concatenate(each).astype(np.int64)
        counts = np.bincount(flat, minlength=vocabulary_size)
        return (counts / len(each)).astype(np.float32)

    def plan(self, start_step: int = 0) -> Iterator[PlannedBatch]:
        """Plans the batches of a step and of all that follow, without end."""
        epoch, skip = divmod(start_step, self.steps_per_epoch)
        while True:
            rng = np.random.default_rng([self._seed, epoch, _MIRROR_SEED])
            mirrored = (rng.random(len(self._groups)) < 0.5) & self._mirror
            for members in self._draw_epoch(epoch)[skip:]:
                yield PlannedBatch(
                    epoch,
                    np.concatenate([self._groups[i] for i in members]),
                    self._rows[members],
                    mirrored[members],
                    int(self._bounds[members].max()),
                )
            epoch, skip = epoch + 1, 0

    def dataset(
        self, start_step: int = 0, *, replicas: Replicas | None = None
    ) -> tf.data.Dataset:
        """Gives batches without end, as `fit` takes them.

        Args:
            start_step: Begin at this step of the run.
            replicas: Give the share of each in turn, not whole batches.

        Returns:
            Dictionaries of `token_ids` int32 (batch, length), `padding_mask`
            int32 (batch, length) and the image input float32 (images, ...).
            The captions of an image are neighbouring rows. Shares also have
            `rows` int32 (batch,), their rows in the whole batch, and
            `num_rows` int32 (), its size.
        """
        signature = dict(TEXT_SIGNATURE)
        if replicas is not None:
            signature["rows"] = tf.TensorSpec((None,), tf.int32)
            signature["num_rows"] = tf.TensorSpec((), tf.int32)

        def gather() -> Iterator[dict[str, Any]]:
            for planned in self.plan(start_step):
                shares = replicas.split(planned) if replicas else (planned,)
                yield from map(self.gather, shares)

        return self.to_dataset(gather, signature)

    def to_dataset(
        self,
        gather: Callable[[], Iterable[dict[str, Any]]],
        text_signature: Mapping[str, tf.TensorSpec],
    ) -> tf.data.Dataset:
        """Gives batches of `gather`, anew for each pass, ahead of the consumer.

        `text_signature` has the types of all but the images.
        """
        name, shape = self._image_input, (None, *self._features.shape[1:])
        dtype = tf.as_dtype(self._features.dtype)
        signature = {**text_signature, name: tf.TensorSpec(shape, dtype)}

        # Passed on as they are kept, in a half or a quarter of the memory.
        def to_float(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {**batch, name: tf.cast(batch[name], tf.float32)}

        dataset = tf.data.Dataset.from_generator(
            gather, output_signature=signature
        )
        return without_tuning(dataset.map(to_float).prefetch(4))

    def gather(self, planned: PlannedBatch) -> dict[str, Any]:
        """Reads a planned batch, as `dataset` gives it but for dtypes."""
        token_ids, padding_mask = self.pad(planned.captions, planned.length)
        features = self._features[planned.image_rows]
        if planned.is_mirrored.any():
            mirrored = planned.is_mirrored
            # In place: what was read by indices is a copy.
            features[mirrored] = features[mirrored, :, ::-1]
        batch = {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            self._image_input: features,
        }
        if planned.rows is None:
            return batch
        return {**batch, "rows": planned.rows, "num_rows": planned.num_rows}

    def pad(
        self, captions: Sequence[int] | np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gives token ids and padding mask: int32, (captions, length)."""
        shape = (len(captions), length)
        token_ids = np.full(shape, self._pad_token_id, np.int32)
        padding_mask = np.zeros(shape, np.int32)
        for row, caption in enumerate(captions):
            ids = self.token_ids[caption] if caption >= 0 else []
            token_ids[row, : len(ids)] = ids
            padding_mask[row, : len(ids)] = 1
        return token_ids, padding_mask

    def _draw_epoch(self, epoch: int) -> list[np.ndarray]:
        """Draws an epoch's batches: the indices of each one's groups."""
        # Without shuffling, the order of all epochs is that of the first.
        number = epoch if self._shuffle else 0
        rng = np.random.default_rng([self._seed, number])
        batches = []
        for bucket in self._buckets:
            members = _shuffle(bucket, self._shuffle_buffer, rng)
            size = max(self._batch_size // len(self._groups[bucket[0]]), 1)
            starts = range(0, len(members), size)
            batches += [members[s : s + size] for s in starts]
        # One bucket keeps the order of its buffer, as the notebook does.
        if len(self._buckets) == 1:
            return batches
        return [batches[i] for i in rng.permutation(len(batches))]


def _group_captions(
    counts: Sequence[int], lengths: np.ndarray, group_size: int
) -> list[np.ndarray]:
    """Cuts each image's captions, sorted by length, into groups."""
    groups = []
    for captions in np.split(np.arange(len(lengths)), np.cumsum(counts)[:-1]):
        if group_size > 1:
            order = np.argsort(lengths[captions], kind="stable")
            captions = captions[order]
        starts = range(0, len(captions), group_size)
        groups += [captions[s : s + group_size] for s in starts]
    return groups


def _shuffle(
    members: np.ndarray, buffer_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Shuffles, each time drawing from the next `buffer_size` left over."""
    if not 0 < buffer_size < len(members):
        return rng.permutation(members)
    buffer = list(members[:buffer_size])
    shuffled = []
    for member in members[buffer_size:]:
        drawn = rng.integers(buffer_size)
        shuffled.append(buffer[drawn])
        buffer[drawn] = member
    return np.array([*shuffled, *rng.permutation(buffer)])
