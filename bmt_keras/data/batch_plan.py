"""Which captions share a batch, in what order, and what each replica takes."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Mirroring draws from a stream of its own: it does not change the order.
_MIRROR_SEED = 1


@dataclass(frozen=True)
class Share:
    """Where the captions of a replica's share stand in the whole batch."""

    rows: np.ndarray  # int, (batch,), there; that of a blank row is any
    num_rows: int  # in the whole batch
    num_captions: int  # in the share; the rows after them are blank


@dataclass(frozen=True)
class PlannedBatch:
    """The captions that a step learns from, and the images that they are of."""

    epoch: int  # number of the pass over all captions, from 0
    captions: np.ndarray  # int, (batch,), the captions' indices
    image_rows: np.ndarray  # int, (images,), rows of the features
    is_mirrored: np.ndarray  # bool, (images,)
    length: int  # tokens to which the captions are padded
    share: Share | None = None  # the part of a batch that this is


@dataclass(frozen=True)
class Replicas:
    """The replicas that a process reads for.

    Shares are alike in shape: where the images of a batch cannot be dealt out
    evenly, blank captions of an image that is there anyway fill the last ones.
    The captions of an image's group stay together.

    Attributes:
        first: Number of the first replica.
        local: Replicas of the process.
        total: Replicas of all processes.
    """

    first: int
    local: int
    total: int

    def split(self, planned: PlannedBatch) -> Iterator[PlannedBatch]:
        """Gives the share of each replica of the process in turn."""
        num_groups = len(planned.image_rows)
        # Rounded up: the last shares are filled with blanks.
        size = -(-num_groups // self.total)
        captions = planned.captions.reshape(num_groups, -1)
        rows = np.arange(captions.size).reshape(captions.shape)
        for replica in range(self.first, self.first + self.local):
            groups = np.arange(replica * size, (replica + 1) * size)
            num_real = int((groups < num_groups).sum())
            # A blank repeats the last group; `num_captions` leaves it out.
            groups = np.minimum(groups, num_groups - 1)
            yield dataclasses.replace(
                planned,
                captions=captions[groups].ravel(),
                image_rows=planned.image_rows[groups],
                is_mirrored=planned.is_mirrored[groups],
                share=Share(
                    rows=rows[groups].ravel().astype(np.int32),
                    num_rows=captions.size,
                    num_captions=num_real * captions.shape[1],
                ),
            )


class BatchPlan:
    """Plans the batches of a run; it reads no image and no caption.

    The order of a step depends on the seed and the step alone. Captions of
    like length share a batch. Captions of an image may stay together in groups.
    The options are those of `CaptionBatches`.

    Args:
        image_rows: int, (images,), each image's row of the features.
        counts: int, (images,), captions of each image.
        lengths: int, (captions,), tokens of each caption, in the images' order.

    Attributes:
        steps_per_epoch: Batches of one pass over all captions.
    """

    def __init__(
        self,
        image_rows: Sequence[int],
        counts: Sequence[int],
        lengths: np.ndarray,
        *,
        batch_size: int,
        sequence_length: int,
        bucket_width: int,
        group_size: int,
        mirror: bool,
        shuffle_buffer: int,
        shuffle: bool,
        seed: int,
    ) -> None:
        self._batch_size = batch_size
        self._mirror = mirror
        self._shuffle = shuffle
        self._shuffle_buffer = shuffle_buffer
        self._seed = seed
        # A group: its image's row and its captions' indices.
        self._rows, self._groups = _group_captions(
            image_rows, counts, lengths, group_size
        )
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
        self.steps_per_epoch = len(self.of_epoch(0))

    def of_epoch(self, epoch: int) -> list[np.ndarray]:
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

    def from_step(self, step: int) -> Iterator[PlannedBatch]:
        """Plans the batches of a step and of all that follow, without end."""
        epoch, skip = divmod(step, self.steps_per_epoch)
        while True:
            rng = np.random.default_rng([self._seed, epoch, _MIRROR_SEED])
            mirrored = (rng.random(len(self._groups)) < 0.5) & self._mirror
            for members in self.of_epoch(epoch)[skip:]:
                yield PlannedBatch(
                    epoch,
                    np.concatenate([self._groups[i] for i in members]),
                    self._rows[members],
                    mirrored[members],
                    int(self._bounds[members].max()),
                )
            epoch, skip = epoch + 1, 0


def _group_captions(
    image_rows: Sequence[int],
    counts: Sequence[int],
    lengths: np.ndarray,
    group_size: int,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Cuts each image's captions, sorted by length, into groups."""
    rows, groups, start = [], [], 0
    for image_row, count in zip(image_rows, counts, strict=True):
        captions = np.arange(start, start + count)
        if group_size > 1:
            order = np.argsort(lengths[start : start + count], kind="stable")
            captions = captions[order]
        for first in range(0, count, group_size):
            rows.append(image_row)
            groups.append(captions[first : first + group_size])
        start += count
    return np.array(rows), groups


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
