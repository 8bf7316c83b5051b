"""What each replica of a model reads of a batch."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bmt_keras.data.batch_plan import PlannedBatch, Share


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
