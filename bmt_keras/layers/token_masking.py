"""Random masking of a caption's tokens, for masked language modelling."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from bmt_keras.layers.parts import ConfiguredLayer, Shape

_SLOTS = ("mask_positions", "labels", "sample_weight")
# Seeds of evaluation, one for each draw: equal seeds give equal numbers.
_EVALUATION_SEEDS = {"rate": 11, "order": 12, "share": 13, "ids": 14}


@keras.saving.register_keras_serializable(package="bmt_keras")
class TokenMasking(ConfiguredLayer):
    """Replaces random tokens by the mask token and tells which they were.

    Special tokens and padding are never masked, and a caption that has a token
    to mask has at least one masked. With `rate=None` every caption draws its
    own rate from (0, 1], so that a model also learns to write from a blank
    caption; a fixed rate as in BERT does not teach that.

    Args:
        mask_token_id: int.
        special_token_ids: ints that are never masked, such as padding, start
            and end. `mask_token_id` counts as one of them.
        rate: float in (0, 1] or None. The share of masked tokens, exact on
            average: their number is rounded up or down at random (but one
            token is always masked). Defaults to None, a rate for each caption.
        vocabulary_size: int or None. Needed where `random_share` is not 0.
        mask_share: float. Share of the masked positions that show the mask
            token. Defaults to 1.0; BERT takes 0.8.
        random_share: float. Share of them that show a random token that is not
            special. Defaults to 0.0; BERT takes 0.1. The rest stay as they are.
        seed: int or None. Seed of the draws in training.
        **kwargs: The arguments of `keras.layers.Layer`.

    Call arguments:
        token_ids: int, (batch, length).
        padding_mask: int or bool, (batch, length), 1 at tokens, or None where
            the padding's id is among `special_token_ids`.
        training: bool or None. True and None draw anew at every call; False
            draws the same masks for the same shape, so that figures on
            held-out captions compare between epochs.

    Returns:
        A dict, where `capacity` is `length` for `rate=None`, else
        `min(length, floor(rate * length) + 1)`:

        - `"token_ids"`: int32, (batch, length), masked.
        - `"mask_positions"`: int32, (batch, capacity), ascending, then 0.
        - `"labels"`: int32, (batch, capacity), the original ids, then 0.
        - `"sample_weight"`: float32, (batch, capacity), 1 where masked, then 0.

    Attributes:
        unmaskable_token_ids: The special ones and the mask's, in order.

    Raises:
        TypeError: If `token_ids` are not integers.
        ValueError: If an argument is out of its range.

    Example:
        ```python
        masking = TokenMasking(4, special_token_ids=[0, 2, 3], rate=0.5)
        masked = masking(np.array([[2, 17, 9, 25, 31, 3, 0]]))
        # token_ids perhaps [[2, 17, 4, 25, 4, 3, 0]], then
        # mask_positions [[2, 4, 0, 0]] and labels [[9, 31, 0, 0]]
        ```

    Reference:
        - [Devlin et al., 2019](https://arxiv.org/abs/1810.04805)
        - [Ghazvininejad et al., 2019](https://arxiv.org/abs/1904.09324)
    """

    def __init__(
        self,
        mask_token_id: int,
        special_token_ids: Sequence[int],
        *,
        rate: float | None = None,
        vocabulary_size: int | None = None,
        mask_share: float = 1.0,
        random_share: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if rate is not None and not 0 < rate <= 1:
            raise ValueError(
                f"`rate` must be in (0, 1] or None. Received: rate={rate}."
            )
        if min(mask_share, random_share) < 0 or mask_share + random_share > 1:
            raise ValueError(
                "`mask_share` and `random_share` must not be negative, nor "
                f"exceed 1 together. Received: {mask_share=}, {random_share=}."
            )
        self.mask_token_id = mask_token_id
        self.special_token_ids = [int(token) for token in special_token_ids]
        self.rate = rate
        self.vocabulary_size = vocabulary_size
        self.mask_share = mask_share
        self.random_share = random_share
        self.seed = seed
        self.unmaskable_token_ids = sorted({*special_token_ids, mask_token_id})
        self._check_ids()
        self._ordinary_ids = np.array(
            sorted(
                {*range(vocabulary_size or 0)} - {*self.unmaskable_token_ids}
            ),
            dtype="int32",
        )
        self._seed_generator = keras.random.SeedGenerator(seed)

    def call(
        self,
        token_ids: Any,
        padding_mask: Any = None,
        training: bool | None = None,
        mask: Any = None,
    ) -> dict[str, Any]:
        """Masks the tokens; see the class."""
        noise = self.draw_noise(ops.shape(token_ids), training=training)
        mask = mask if padding_mask is None else padding_mask
        return self.mask_tokens(token_ids, noise, mask)

    def draw_noise(
        self, shape: tuple[Any, Any], *, training: bool | None = None
    ) -> dict[str, Any]:
        """Draws the random numbers of a call, for `mask_tokens`.

        `shape` is that of the token ids. Each tensor begins with the batch.
        """
        # None is what a call outside of a model has, as in a data pipeline.
        fresh = training is None or training

        def seed(name: str) -> Any:
            return self._seed_generator if fresh else _EVALUATION_SEEDS[name]

        def uniform(name: str, shape: Any) -> Any:
            return keras.random.uniform(shape, seed=seed(name), dtype="float32")

        noise = {
            "rate": uniform("rate", (shape[0], 1)),
            "order": uniform("order", shape),
        }
        if self.mask_share < 1:
            noise["share"] = uniform("share", shape)
        if self.mask_share < 1 and self.random_share > 0:
            noise["ids"] = keras.random.randint(
                shape, 0, len(self._ordinary_ids), seed=seed("ids")
            )
        return noise

    def mask_tokens(
        self, token_ids: Any, noise: dict[str, Any], padding_mask: Any = None
    ) -> dict[str, Any]:
        """Masks tokens as the call, by random numbers that were drawn before.

        `noise` is that of `draw_noise` for the same shape, or examples of what
        it gave for a larger batch: those are masked as they would be there.
        """
        _check_integers(token_ids)
        token_ids = ops.cast(token_ids, "int32")
        length = ops.shape(token_ids)[1]
        capacity = self._capacity(length)
        # Compared with each special token: (batch, length, special tokens).
        different = ops.not_equal(
            token_ids[..., None], self.unmaskable_token_ids
        )
        maskable = ops.all(different, axis=-1)
        if padding_mask is not None:
            maskable &= ops.cast(padding_mask, "bool")
        count = self._count(maskable, capacity, noise["rate"])  # (batch, 1)
        # The draws are below 1: what must stay ranks last.
        order = ops.argsort(ops.where(maskable, noise["order"], 2.0))
        is_masked = ops.argsort(order) < count

        # Masked positions sort before all others, either in ascending order.
        position = ops.arange(length, dtype="int32")
        order = ops.argsort(ops.where(is_masked, position, position + length))
        is_used = ops.arange(capacity, dtype="int32") < count
        mask_positions = ops.where(is_used, order[:, :capacity], 0)
        labels = ops.take_along_axis(token_ids, mask_positions, axis=1)
        shown_ids = self._shown_ids(token_ids, noise)
        return {
            "token_ids": ops.where(is_masked, shown_ids, token_ids),
            "mask_positions": ops.cast(mask_positions, "int32"),
            "labels": ops.where(is_used, labels, 0),
            "sample_weight": ops.cast(is_used, "float32"),
        }

    def compute_mask(
        self, inputs: Any, previous_mask: Any = None
    ) -> dict[str, Any] | None:
        """Returns the token ids' mask for the masked token ids alone."""
        if previous_mask is None:
            return None
        return {"token_ids": previous_mask, **dict.fromkeys(_SLOTS)}

    def compute_output_shape(self, token_ids_shape: Shape) -> dict[str, Shape]:
        """Returns the shape of each output."""
        batch, length = token_ids_shape
        capacity = None if length is None else self._capacity(length)
        slots = dict.fromkeys(_SLOTS, (batch, capacity))
        return {"token_ids": (batch, length), **slots}

    def compute_output_spec(
        self, token_ids: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Returns the shape and dtype of each output."""
        _check_integers(token_ids)
        shapes = self.compute_output_shape(token_ids.shape)
        dtypes = dict.fromkeys(shapes, "int32") | {"sample_weight": "float32"}
        return {k: KerasTensor(shapes[k], dtypes[k]) for k in shapes}

    def save_own_variables(self, store: Any) -> None:
        """Saves how far the draws have come, so that a resumed run goes on."""
        store["seed_state"] = self._seed_generator.state

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        self._seed_generator.state.assign(store["seed_state"])

    def _check_ids(self) -> None:
        size, special = self.vocabulary_size, self.unmaskable_token_ids
        if self.random_share > 0 and (size is None or size <= len(special)):
            raise ValueError(
                "`vocabulary_size` must exceed the number of special tokens "
                "where `random_share` is not 0. Received: "
                f"vocabulary_size={size}, special tokens {special}."
            )
        if special[0] < 0 or (size is not None and special[-1] >= size):
            raise ValueError(
                "`mask_token_id` and `special_token_ids` must be in [0, "
                "vocabulary_size). Received: "
                f"vocabulary_size={size}, special tokens {special}."
            )

    def _capacity(self, length: Any) -> Any:
        if self.rate is None:
            return length
        if isinstance(length, int):
            return min(length, math.floor(self.rate * length) + 1)
        # float64, so that a length known only at run time gives the same.
        share = ops.floor(ops.cast(length, "float64") * self.rate)
        return ops.minimum(length, ops.cast(share, "int32") + 1)

    def _count(self, maskable: Any, capacity: Any, draw: Any) -> Any:
        """How many tokens of each caption are masked: int32, (batch, 1)."""
        total = ops.sum(ops.cast(maskable, "float32"), axis=1, keepdims=True)
        if self.rate is None:
            # The draw may be 0 and is never 1: the rate is in (0, 1].
            count = ops.ceil((1 - draw) * total)
        else:
            # The draw rounds up as often as the fraction says.
            count = ops.maximum(ops.floor(self.rate * total + draw), 1)
        count = ops.cast(ops.minimum(count, total), "int32")
        # Rounding of the sum above must not mask more than there are slots.
        return ops.minimum(count, capacity)

    def _shown_ids(self, token_ids: Any, noise: dict[str, Any]) -> Any:
        """What a masked token shows in its stead: int32, (batch, length)."""
        masks = ops.full_like(token_ids, self.mask_token_id)
        if self.mask_share == 1:
            return masks
        shown = token_ids
        if self.random_share > 0:
            changed = noise["share"] < self.mask_share + self.random_share
            ids = ops.take(self._ordinary_ids, noise["ids"])
            shown = ops.where(changed, ids, shown)
        return ops.where(noise["share"] < self.mask_share, masks, shown)


def _check_integers(token_ids: Any) -> None:
    dtype = keras.backend.standardize_dtype(token_ids.dtype)
    if not keras.backend.is_int_dtype(dtype):
        raise TypeError(f"`token_ids` must be integers. Received: {dtype=}.")
