"""Self-critical learning: from a captioner's own captions, by CIDEr-D.

Several captions of each image are sampled by mask-predict. The weight of one
is its CIDEr-D less the mean of the image's other samples (Luo 2020, arXiv
2003.09971, after Rennie et al. 2017, arXiv 1612.00563). The model then learns
to fill masks in the captions with positive weight and not to in those with
negative weight. The published gradient needs the probability of a whole
caption, which a masked model does not have; at random masks its tokens'
probabilities given the rest stand for it, however the caption was sampled.

A caption by people, another one each time, stays in the batch with a small
weight, so that the model keeps words that CIDEr-D does not ask for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from bmt_keras.captioner import Captioner
from bmt_keras.data.batches import TEXT_SIGNATURE, CaptionBatches, PlannedBatch
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.untuned import without_tuning
from bmt_keras.decoding import DecodingOptions, draw_captions
from bmt_keras.evaluation.cider_d import CiderD
from bmt_keras.evaluation.words import strip_marks
from bmt_keras.settings import Settings

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


@dataclass(eq=False)
class SelfCriticalBatches:
    """Batches of sampled captions, weighed by how they compare.

    Samples depend on the weights of the step before, the seed and the step.
    """

    batches: CaptionBatches  # choose each step's images and people's captions
    captioner: Captioner  # of the model that learns
    settings: Settings
    images: Sequence[CaptionedImage]

    def __post_init__(self) -> None:
        """Prepares the scores and the sampling."""
        steps = self.settings.optimization
        self._num_samples, self._seed = steps.self_critical_samples, steps.seed
        self._graph = self.captioner.graph
        # As evaluation scores: samples have no accents.
        self._cider = CiderD(
            {x.image_id: [*map(strip_marks, x.captions)] for x in self.images}
        )
        self._sample = tf.function(self._sample_in_graph, reduce_retracing=True)

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """Gives batches from a step of the run on, without end.

        Returns:
            Dictionaries as of `CaptionBatches.dataset` with `sample_weight`,
            float32, (batch,). An image's samples come before people's caption.
        """
        name = self._graph.model.image_input
        shape = self._graph.model.input[name].shape

        def sample() -> Iterator[dict[str, np.ndarray]]:
            plan = self.batches.plan(start_step)
            for step, planned in enumerate(plan, start_step):
                yield self._sample_batch(planned, step)

        dataset = tf.data.Dataset.from_generator(
            sample,
            output_signature={
                **TEXT_SIGNATURE,
                "sample_weight": tf.TensorSpec((None,), tf.float32),
                name: tf.TensorSpec(shape, tf.float32),
            },
        )
        # Nothing is read ahead: a step samples by the weights before it.
        return without_tuning(dataset)

    def _sample_batch(
        self, planned: PlannedBatch, step: int
    ) -> dict[str, np.ndarray]:
        batch = self.batches.gather(planned)
        name = self._graph.model.image_input
        images = batch[name].astype(np.float32)
        seed = tf.constant([self._seed, step], tf.int32)
        sampled = self._sample(images, seed).numpy()
        ids = self.batches.caption_image_ids[planned.captions]
        ids = ids.reshape(len(images), -1)[:, 0]
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
        pad_token_id = self.captioner.tokenizer.pad_token_id
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
        options = DecodingOptions(
            passes=4,
            temperature=1.0,  # of the model's own probabilities
            top_p=0.9,
            num_captions=self._num_samples,
            seed=seed,
        )
        return draw_captions(self._graph.predictor(embedding), options=options)

    def _advantages(
        self, image_ids: np.ndarray, sampled: np.ndarray
    ) -> np.ndarray:
        """Each sample's CIDEr-D less the mean of the image's others."""
        decode = self.captioner.tokenizer.decode
        pairs = zip(image_ids.tolist(), sampled.tolist(), strict=True)
        scores = np.array(
            [
                [self._cider.score(image_id, decode(ids)) for ids in samples]
                for image_id, samples in pairs
            ],
            np.float32,
        )
        # The mean of the others is the mean of all but for a factor.
        number = self._num_samples
        centred = scores - scores.mean(axis=1, keepdims=True)
        return centred * (number / (number - 1))
