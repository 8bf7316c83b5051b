"""Learning from a captioner's own captions, judged by CIDEr-D."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bmt_keras.caption_graph import CaptionGraph
from bmt_keras.decoding import DecodingOptions
from bmt_keras.evaluation.cider_d import CiderD


class SelfCritical:
    """Draws captions and weighs them by how much better they are than others.

    Several captions of each photo are drawn by mask-predict. The weight of one
    is its CIDEr-D less the mean of the photo's other drawn captions (Luo 2020,
    arXiv 2003.09971, after Rennie et al. 2017, arXiv 1612.00563). The model
    then learns to fill masks in the captions with positive weight and not to
    in those with negative weight. The published gradient needs the probability
    of a whole caption, which a masked model does not have; at random masks its
    tokens' probabilities given the rest stand for it, whatever the number of
    passes that drew the caption.

    A caption by people, another one each time, stays in the batch with a small
    weight of its own, so that the model goes on to know words that CIDEr-D does
    not ask for.

    Args:
        graph: Of the model that learns.
        references: Captions by people by image id.
        num_captions: Captions drawn of each photo, at least 2.
        keep_best: Give the best caption of each photo the weight 1 and the
            others 0, instead: distillation from the model's own captions.
        passes: Passes that draw them.
        temperature: Of the draws.
        top_p: Of the draws.
        maskings: How often each caption is masked anew for one step: to draw
            one costs more than to learn from it again.
        reference_weight: Weight of the caption by people.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        graph: CaptionGraph,
        references: Mapping[int, Sequence[str]],
        *,
        num_captions: int = 5,
        keep_best: bool = False,
        passes: int = 4,
        temperature: float = 1.0,
        top_p: float = 0.9,
        maskings: int = 1,
        reference_weight: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Counts the references."""
        self._graph = graph
        self._cider = CiderD(references)
        self._options = DecodingOptions(
            passes=passes,
            temperature=temperature,
            top_p=top_p,
            num_captions=num_captions,
        )
        self._keep_best = keep_best
        self._maskings = maskings
        self._reference_weight = reference_weight
        self._seed = seed

    def draw(self, batch: Mapping[str, Any], step: Any) -> dict[str, Any]:
        """Gives drawn captions with their weights, and people's after them.

        The captions of a photo are neighbouring rows.

        Args:
            batch: As `CaptionBatches` gives it, with `image_ids`.
            step: int, (), of the optimizer.

        Returns:
            The batch with other captions and a `caption_weight`.
        """
        graph = self._graph
        image_ids = batch["image_ids"]
        name = graph.model.image_input
        photos = batch[name]
        if graph.model.image_tower is not None:
            photos = graph.embed_pixels(photos)
        seed = tf.stack([self._seed, tf.cast(step, tf.int32)])
        options = dataclasses.replace(self._options, seed=seed)
        drawn = graph.draw_captions(photos, options=options)
        number = self._options.num_captions
        rewards = tf.numpy_function(
            self._reward,
            [
                tf.repeat(image_ids, number),
                graph.tokenizer.decode_tensor(drawn),
            ],
            tf.float32,
            stateful=False,
        )
        weights = self._weigh(tf.reshape(rewards, (-1, number)))
        drawn = tf.reshape(drawn, (tf.shape(weights)[0], number, -1))
        return self._with_references(batch, drawn, weights, seed)

    def _weigh(self, rewards: Any) -> Any:
        """Rewards to weights: float32, (photos, num_captions)."""
        number = self._options.num_captions
        if self._keep_best:
            return tf.one_hot(tf.argmax(rewards, axis=1), number)
        # The mean of the others is the mean of all but for a factor.
        others = rewards - tf.reduce_mean(rewards, axis=1, keepdims=True)
        return others * (number / (number - 1))

    def _with_references(
        self, batch: Mapping[str, Any], drawn: Any, weights: Any, seed: Any
    ) -> dict[str, Any]:
        name = self._graph.model.image_input
        pad_token_id = self._graph.tokenizer.pad_token_id
        if self._reference_weight:
            given = tf.reshape(
                batch["token_ids"],
                (tf.shape(drawn)[0], -1, tf.shape(batch["token_ids"])[1]),
            )
            # One of each photo's: (photos, 1, length)
            index = tf.random.stateless_uniform(
                (tf.shape(drawn)[0],), seed, 0, tf.shape(given)[1], tf.int32
            )
            given = tf.gather(given, index[:, None], axis=1, batch_dims=1)
            width = tf.maximum(tf.shape(given)[2], tf.shape(drawn)[2])
            drawn = tf.concat(
                [
                    _widen(drawn, width, pad_token_id),
                    _widen(given, width, pad_token_id),
                ],
                axis=1,
            )
            shape = tf.shape(given)[:2]
            weights = tf.concat(
                [weights, tf.fill(shape, self._reference_weight)], axis=1
            )
        drawn = tf.repeat(drawn, self._maskings, axis=1)
        weights = tf.repeat(weights, self._maskings, axis=1)
        token_ids = tf.reshape(drawn, (-1, tf.shape(drawn)[2]))
        return {
            "token_ids": token_ids,
            "padding_mask": tf.cast(token_ids != pad_token_id, tf.int32),
            name: batch[name],
            "caption_weight": tf.reshape(weights, (-1,)),
        }

    def _reward(self, image_ids: np.ndarray, texts: np.ndarray) -> np.ndarray:
        scores = [
            self._cider.score(int(image_id), text.decode())
            for image_id, text in zip(image_ids, texts, strict=True)
        ]
        return np.array(scores, np.float32)


def _widen(token_ids: Any, width: Any, pad_token_id: int) -> Any:
    missing = width - tf.shape(token_ids)[2]
    return tf.pad(
        token_ids, [[0, 0], [0, 0], [0, missing]], constant_values=pad_token_id
    )
