"""What the SavedModel can be asked: the signatures over a caption graph."""

from typing import Any

import tensorflow as tf

from bmt_keras import contract
from bmt_keras.caption_graph import CaptionGraph
from bmt_keras.data.images import pad_empty_batch


class CaptionerSignatures:
    """The graphs of a captioner's signatures.

    Args:
        graph: The captioner's graph.
    """

    def __init__(self, graph: CaptionGraph) -> None:
        self._graph = graph

    def weights(self) -> tf.Module:
        """A module that holds every weight once, and nothing else.

        A Keras model that is tracked beside its functions stores its weights
        twice, and does not load in a C++ session.
        """
        graph = self._graph
        models = [graph.model]
        if graph.model.image_encoder is None:
            models.append(graph.image_encoder)
        module = tf.Module(name="captioner")
        module.weights = [w.value for model in models for w in model.weights]
        return module

    def trace(self) -> dict[str, Any]:
        """Traces the signatures.

        Returns:
            Concrete functions by signature name. Each input and output has
            the batch as its first dimension.
        """
        image_bytes = tf.TensorSpec(
            (None,), tf.string, name=contract.IMAGE_BYTES
        )
        embedding = tf.TensorSpec(
            (None, *self._graph.embedding_shape),
            tf.float32,
            name=contract.IMAGE_EMBEDDING,
        )
        token_ids, padding_mask = (
            tf.TensorSpec((None, None), tf.int32, name=name)
            for name in (contract.TOKEN_IDS, contract.PADDING_MASK)
        )
        wanted = {
            contract.SERVING_DEFAULT: (self._caption, (image_bytes,)),
            contract.EMBED_IMAGE: (self._embed, (image_bytes,)),
            contract.CAPTION_EMBEDDING: (self._caption_embedding, (embedding,)),
            contract.MASKED_LM: (
                self._masked_lm,
                (token_ids, padding_mask, embedding),
            ),
        }
        return {
            name: tf.function(graph).get_concrete_function(*inputs)
            for name, (graph, inputs) in wanted.items()
        }

    def _caption(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        # Convolutions do not run on no photo at all.
        rows = pad_empty_batch(image_bytes)
        embedded = self._embed_rows(rows)
        written = self._caption_embedding(embedded[contract.IMAGE_EMBEDDING])
        good = tf.equal(embedded[contract.ERROR], "")
        outputs = {
            name: tf.where(
                good if value.shape.rank == 1 else good[:, None],
                value,
                tf.zeros_like(value),
            )
            for name, value in written.items()
        }
        outputs[contract.ERROR] = embedded[contract.ERROR]
        return _keep_rows(outputs, image_bytes)

    def _embed(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = pad_empty_batch(image_bytes)
        return _keep_rows(self._embed_rows(rows), image_bytes)

    def _embed_rows(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, errors = self._graph.read_pixels(image_bytes)
        return {
            contract.IMAGE_EMBEDDING: self._graph.embed_pixels(pixels),
            contract.ERROR: errors,
        }

    def _caption_embedding(
        self, image_embedding: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        written = self._graph.write_captions(image_embedding)
        names = (
            contract.CAPTION,
            contract.SCORE,
            contract.TOKEN_IDS,
            contract.TOKEN_SCORES,
        )
        # Outputs get names of their own: an input may be called the same.
        return {name: tf.identity(written[name]) for name in names}

    def _masked_lm(
        self,
        token_ids: tf.Tensor,
        padding_mask: tf.Tensor,
        image_embedding: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        logits = self._graph.model.token_logits(
            token_ids, padding_mask, image_embedding
        )
        return {contract.LOGITS: tf.cast(logits, tf.float32)}


def _keep_rows(
    outputs: dict[str, tf.Tensor], image_bytes: tf.Tensor
) -> dict[str, tf.Tensor]:
    count = tf.size(image_bytes)
    return {name: value[:count] for name, value in outputs.items()}
