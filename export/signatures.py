"""What the SavedModel can be asked: the signatures over a caption graph."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from bmt_keras import contract
from bmt_keras.caption_graph import CaptionGraph

from .photo_rows import blank_bad_rows, first_error, with_rows
from .shared_graph import share_parts
from .text_signatures import TextSignatures

_PHOTOS = tf.TensorSpec((None,), tf.string, name=contract.IMAGE_BYTES)
_TEXTS = tf.TensorSpec((None,), tf.string, name=contract.TEXT)
_LENGTHS = tf.TensorSpec((None,), tf.int32, name=contract.LENGTH)


class CaptionerSignatures:
    """The graphs of a captioner's signatures.

    What several signatures do, such as reading photos or writing captions, is
    a function of its own: the SavedModel stores it once.

    Args:
        graph: The captioner's graph.
    """

    def __init__(self, graph: CaptionGraph) -> None:
        self._graph = share_parts(graph)
        self._embedding_spec = tf.TensorSpec(
            (None, *graph.embedding_shape),
            tf.float32,
            name=contract.IMAGE_EMBEDDING,
        )
        self._embed_rows = tf.function(
            self._read_and_embed, input_signature=[_PHOTOS]
        )
        self._write = tf.function(
            self._write_captions,
            input_signature=[self._embedding_spec, _LENGTHS],
        )
        self._texts = TextSignatures(self._graph, self._embed_rows)

    def weights(self) -> tf.Module:
        """A module that holds every weight in use once, and nothing else.

        A Keras model that is tracked beside its functions stores its weights
        twice, and does not load in a C++ session.
        """
        graph = self._graph
        # The embedder stands in for an encoder that was trained along.
        replaced = graph.model.image_encoder
        unused = set(map(id, replaced.weights)) if replaced else set()
        weights = [w for w in graph.model.weights if id(w) not in unused]
        module = tf.Module(name="captioner")
        module.weights = [w.value for w in weights + graph.embedder.weights]
        return module

    def trace(self, *, text_inputs: bool = True) -> dict[str, Any]:
        """Traces the signatures.

        Args:
            text_inputs: Whether signatures that take texts are among them:
                they need tensorflow_text's ops, the others TensorFlow's alone.

        Returns:
            Concrete functions by signature name. Each input and output has
            the batch as its first dimension.
        """
        token_ids, padding_mask = (
            tf.TensorSpec((None, None), tf.int32, name=name)
            for name in (contract.TOKEN_IDS, contract.PADDING_MASK)
        )
        wanted: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
            contract.SERVING_DEFAULT: (self._caption, (_PHOTOS,)),
            contract.CAPTION_WITH_LENGTH: (
                self._caption_with_length,
                (_PHOTOS, _LENGTHS),
            ),
            contract.EMBED_IMAGE: (self._embed, (_PHOTOS,)),
            contract.CAPTION_EMBEDDING: (
                self._caption_embedding,
                (self._embedding_spec,),
            ),
            contract.MASKED_LM: (
                self._masked_lm,
                (token_ids, padding_mask, self._embedding_spec),
            ),
        }
        if text_inputs:
            wanted[contract.FILL_MASK] = (
                self._texts.fill_mask,
                (
                    _PHOTOS,
                    _TEXTS,
                ),
            )
            wanted[contract.SCORE_CAPTION] = (
                self._texts.score_caption,
                (
                    _PHOTOS,
                    _TEXTS,
                ),
            )
        return {
            name: tf.function(graph).get_concrete_function(*inputs)
            for name, (graph, inputs) in wanted.items()
        }

    # === Signatures ===

    def _caption(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._caption_with_length(
            image_bytes, tf.zeros_like(image_bytes, tf.int32)
        )

    def _caption_with_length(
        self, image_bytes: tf.Tensor, length: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        def run(
            image_bytes: tf.Tensor, length: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            embedded = self._embed_rows(image_bytes)
            wrong = self._check_length(length)
            length = tf.where(tf.equal(wrong, ""), length, 0)
            written = self._write(embedded[contract.IMAGE_EMBEDDING], length)
            return blank_bad_rows(
                written, first_error(embedded[contract.ERROR], wrong)
            )

        return with_rows(run, image_bytes, length, name=contract.LENGTH)

    def _embed(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def run(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            embedded = dict(self._embed_rows(image_bytes))
            # A bad photo is a black one up to here.
            errors = embedded.pop(contract.ERROR)
            return blank_bad_rows(embedded, errors)

        return with_rows(run, image_bytes)

    def _caption_embedding(
        self, image_embedding: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        free = tf.zeros(tf.shape(image_embedding)[:1], tf.int32)
        return dict(self._write(image_embedding, free))

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

    # === What signatures share ===

    def _read_and_embed(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, errors = self._graph.read_pixels(image_bytes)
        return {
            contract.IMAGE_EMBEDDING: self._graph.embed_pixels(pixels),
            contract.ERROR: errors,
        }

    def _write_captions(
        self, image_embedding: tf.Tensor, length: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        free = tf.equal(length, 0)
        bounds = tf.stack(
            [
                tf.where(free, 1, length),
                tf.where(free, self._graph.max_words, length),
            ],
            axis=1,
        )
        written = self._graph.write_captions(
            image_embedding, length_bounds=bounds
        )
        names = (
            contract.CAPTION,
            contract.SCORE,
            contract.TOKEN_IDS,
            contract.TOKEN_SCORES,
        )
        return {name: written[name] for name in names}

    def _check_length(self, length: tf.Tensor) -> tf.Tensor:
        most = self._graph.max_words
        refusal = tf.strings.join(
            [
                f"`length`: expected a number of tokens from 1 to {most}, or "
                "0 to leave it free, found ",
                tf.strings.as_string(length),
                ".",
            ]
        )
        return tf.where((length >= 0) & (length <= most), "", refusal)
