"""Self-critical learning: from a captioner's own captions, by CIDEr-D.

Several captions of each image are sampled by mask-predict. The weight of one
is its CIDEr-D less the mean of the image's other samples (Luo 2020, arXiv
2003.09971, after Rennie et al. 2017, arXiv 1612.00563). The model then learns
to fill masks in the captions with positive weight and not to in those with
negative weight. The published gradient needs the probability of a whole
caption, which a masked model does not have; at random masks its tokens'
probabilities given the rest stand for it, whatever the number of passes that
sampled the caption.

A caption by people, another one each time, stays in the batch with a small
weight, so that the model keeps words that CIDEr-D does not ask for.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bmt_keras.captioner import Captioner
from bmt_keras.data.batches import TEXT_SIGNATURE, CaptionBatches
from bmt_keras.data.untuned import without_tuning
from bmt_keras.decoding import DecodingOptions
from bmt_keras.evaluation.cider_d import CiderD
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.settings import Settings

_PASSES = 4
_TOP_P = 0.9
_REFERENCE_WEIGHT = 0.1


def without_regularization(settings: Settings) -> Settings:
    """Turns dropout and label smoothing off in a self-critical run."""
    if not settings.optimization.self_critical_samples:
        return settings
    # Captions are sampled without dropout, and smoothing has no meaning for a
    # caption that is to become unlikely.
    return settings.replace(
        text_dropout=0.0,
        fusion_dropout=0.0,
        image_dropout=0.0,
        label_smoothing=0.0,
    )


@keras.saving.register_keras_serializable(package="bmt_keras")
class SelfCriticalLM(BimodalMaskedLM):
    """A model that learns from the logits by which it samples captions."""

    # Freezing the concept head of an ordinary model would not do. Its training
    # logits leave the head's log-odds out, by which captions are sampled: the
    # language model would learn once more what the log-odds already say. And
    # the loss of concepts would teach a trained image tower that the tokens of
    # bad samples are in the image.
    def predict_masked(
        self, inputs: dict[str, Any], *, training: bool, **options: Any
    ) -> dict[str, Any]:
        """As `BimodalMaskedLM`, in training as in sampling."""
        return super().predict_masked(inputs, training=False, **options)


def copy_as(
    kind: type[BimodalMaskedLM], model: BimodalMaskedLM
) -> BimodalMaskedLM:
    """Gives a copy that is of another class and not compiled."""
    copy = kind.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


class SelfCriticalBatches:
    """Batches of sampled captions, weighed by how they compare.

    What is sampled depends on the weights of the step before, the seed and the
    step alone.

    Args:
        batches: Choose the images of each step, and give people's captions.
        captioner: Of the model that learns.
        references: Captions by people by image id.
        num_samples: Captions sampled of each image, at least 2.
        seed: Seed of the samples.
    """

    def __init__(
        self,
        batches: CaptionBatches,
        captioner: Captioner,
        references: Mapping[int, Sequence[str]],
        *,
        num_samples: int,
        seed: int = 0,
    ) -> None:
        self._batches = batches
        self._graph = captioner.graph
        self._tokenizer = captioner.tokenizer
        self._cider = CiderD(references)
        self._num_samples = num_samples
        self._seed = seed
        self._options = DecodingOptions(
            passes=_PASSES,
            temperature=1.0,  # of the model's own probabilities
            top_p=_TOP_P,
            num_captions=num_samples,
        )
        self._sample = tf.function(self._sample_in_graph, reduce_retracing=True)

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """Gives batches from a step of the run on, without end.

        Returns:
            Dictionaries as of `CaptionBatches.dataset` with `sample_weight`,
            float32, (batch,). An image's samples come before the caption by
            people.
        """
        name = self._graph.model.image_input
        shape = self._graph.model.input[name].shape
        dataset = tf.data.Dataset.from_generator(
            lambda: self._sample_batches(start_step),
            output_signature={
                **TEXT_SIGNATURE,
                "sample_weight": tf.TensorSpec((None,), tf.float32),
                name: tf.TensorSpec(shape, tf.float32),
            },
        )
        # Nothing is read ahead: a step samples by the weights before it.
        return without_tuning(dataset)

    def _sample_batches(self, start_step: int) -> Iterator[dict[str, Any]]:
        plan = self._batches.plan(start_step)
        for step, planned in enumerate(plan, start_step):
            batch = self._batches.gather(planned)
            ids = self._batches.caption_image_ids[planned.captions]
            yield self._sample_batch(batch, ids, step)

    def _sample_batch(
        self, batch: Mapping[str, np.ndarray], image_ids: np.ndarray, step: int
    ) -> dict[str, np.ndarray]:
        name = self._graph.model.image_input
        images = batch[name].astype(np.float32)
        seed = tf.constant([self._seed, step], tf.int32)
        sampled = self._sample(images, seed).numpy()
        ids = image_ids.reshape(len(images), -1)[:, 0]
        weights = np.full(
            (len(images), self._num_samples + 1), _REFERENCE_WEIGHT, np.float32
        )
        weights[:, :-1] = self._advantages(ids, sampled)
        # (images, captions of an image, length)
        given = batch["token_ids"]
        given = given.reshape(len(images), -1, given.shape[1])
        chosen = np.random.default_rng([self._seed, step]).integers(
            given.shape[1], size=len(images)
        )
        given = given[np.arange(len(images)), chosen]  # (images, length)
        width = max(sampled.shape[2], given.shape[1])
        pad_token_id = self._tokenizer.pad_token_id
        token_ids = np.full((*weights.shape, width), pad_token_id, np.int32)
        token_ids[:, :-1, : sampled.shape[2]] = sampled
        token_ids[:, -1, : given.shape[1]] = given
        token_ids = token_ids.reshape(-1, width)
        return {
            "token_ids": token_ids,
            "padding_mask": (token_ids != pad_token_id).astype(np.int32),
            "sample_weight": weights.ravel(),
            name: images,
        }

    def _sample_in_graph(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Token ids, int32, (images, num_samples, width)."""
        embedding = images
        if self._graph.model.image_tower is not None:
            embedding = self._graph.embed_pixels(images)
        options = dataclasses.replace(self._options, seed=seed)
        return self._graph.draw_captions(embedding, options=options)

    def _advantages(
        self, image_ids: np.ndarray, sampled: np.ndarray
    ) -> np.ndarray:
        """Each sample's CIDEr-D less the mean of the image's others."""
        scores = np.array(
            [
                [
                    self._cider.score(int(image_id), text)
                    for text in map(self._tokenizer.decode, samples.tolist())
                ]
                for image_id, samples in zip(image_ids, sampled, strict=True)
            ],
            np.float32,
        )
        # The mean of the others is the mean of all but for a factor.
        number = self._num_samples
        centred = scores - scores.mean(axis=1, keepdims=True)
        return centred * (number / (number - 1))
