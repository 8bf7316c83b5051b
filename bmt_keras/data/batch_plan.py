"""A planned batch, and the shares of it that replicas take."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


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
        rows = np.arange(captions.size, dtype=np.int32).reshape(captions.shape)
        for replica in range(self.first, self.first + self.local):
            groups = np.arange(replica * size, (replica + 1) * size)
            is_blank = groups >= num_groups
            # A blank stands with the image of the last group.
            groups = np.minimum(groups, num_groups - 1)
            yield dataclasses.replace(
                planned,
                captions=np.where(
                    is_blank[:, None], -1, captions[groups]
                ).ravel(),
                image_rows=planned.image_rows[groups],
                is_mirrored=planned.is_mirrored[groups],
                rows=rows[groups].ravel(),
                num_rows=captions.size,
            )
