"""What the SavedModel can be asked: the signatures over a captioner's graph."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from bmt_keras import contract
from bmt_keras.captioner.graph import CaptionGraph
from bmt_keras.decoding import (
    fill_masks,
    mask_candidates,
    mask_predict,
    score_tokens,
)

from .guards import Outputs, TextEncoder, blank_errors, pad_empty
from .shared_graph import share_parts

NUM_CANDIDATES = 5  # tokens given for each mask

_IMAGES = tf.TensorSpec((None,), tf.string, name=contract.IMAGE_BYTES)
_TEXTS = tf.TensorSpec((None,), tf.string, name=contract.TEXT)
_LENGTHS = tf.TensorSpec((None,), tf.int32, name=contract.LENGTH)
_TOKEN_IDS, _PADDING_MASK = (
    tf.TensorSpec((None, None), tf.int32, name=name)
    for name in (contract.TOKEN_IDS, contract.PADDING_MASK)
)
_WRITTEN = (contract.SCORE, contract.TOKEN_IDS, contract.TOKEN_SCORES)


class CaptionerSignatures:
    """The graphs of a captioner's signatures.

    What several signatures do, such as reading images or writing captions, is
    a function of its own: the SavedModel stores it once.
    """

    def __init__(self, graph: CaptionGraph) -> None:
        self._graph = share_parts(graph)
        self._texts = TextEncoder(
            graph.tokenizer, max_caption_tokens=graph.max_caption_tokens
        )
        self._embedding_spec = tf.TensorSpec(
            (None, *graph.model.image_embedding_shape),
            tf.float32,
            name=contract.IMAGE_EMBEDDING,
        )
        self._read_and_embed = tf.function(
            self._read_and_embed_images, input_signature=[_IMAGES]
        )
        self._write = tf.function(
            self._write_captions,
            input_signature=[self._embedding_spec, _LENGTHS],
        )

    def weights(self) -> tf.Module:
        """A module that holds every weight in use once, and nothing else.

        A Keras model that is tracked with its functions stores its weights
        twice, and does not load in a C++ session (keras issue 23553).
        """
        graph = self._graph
        # The embedder stands in for an encoder that was trained along.
        replaced = graph.model.image_tower
        unused = set(map(id, replaced.weights)) if replaced else set()
        weights = [w for w in graph.model.weights if id(w) not in unused]
        module = tf.Module(name="captioner")
        module.weights = [w.value for w in weights + graph.embedder.weights]
        return module

    def trace(self, *, text_inputs: bool = True) -> dict[str, Any]:
        """Gives a concrete function, batch first, by signature name.

        Args:
            text_inputs: Whether signatures that take texts are among them:
                they need tensorflow_text's ops, the others TensorFlow's alone.
        """
        of_images, spec = self._trace_of_images, self._embedding_spec
        traced = {
            contract.SERVING_DEFAULT: of_images(self._caption_embedding),
            contract.CAPTION_WITH_LENGTH: of_images(
                self._caption_with_length, _LENGTHS
            ),
            contract.EMBED_IMAGE: of_images(self._embed),
            contract.CAPTION_EMBEDDING: _trace(self._caption_embedding, spec),
            contract.MASKED_LM: _trace(
                self._masked_lm, _TOKEN_IDS, _PADDING_MASK, spec
            ),
        }
        if text_inputs:
            traced[contract.FILL_MASK] = of_images(self._fill_mask, _TEXTS)
            traced[contract.SCORE_CAPTION] = of_images(
                self._score_caption, _TEXTS
            )
        return traced

    def _trace_of_images(
        self, run: Callable[..., Outputs], *specs: tf.TensorSpec
    ) -> Any:
        """Puts the reading of images before a graph on their embeddings.

        The graph takes values of `specs`, too, and may return their errors.
        """
        names = [contract.IMAGE_BYTES, *(spec.name for spec in specs)]

        def answer(*inputs: tf.Tensor) -> Outputs:
            padded = pad_empty(dict(zip(names, inputs, strict=True)))
            embedding, unreadable = self._read_and_embed(padded[0])
            outputs = run(embedding, *padded[1:])
            refused = outputs.pop(contract.ERROR, "")
            error = tf.where(tf.equal(unreadable, ""), refused, unreadable)
            blanked = blank_errors(outputs, error)
            count = tf.size(inputs[0])
            return {name: value[:count] for name, value in blanked.items()}

        return _trace(answer, _IMAGES, *specs)

    # === Signatures of images ===

    def _caption_with_length(
        self, embedding: tf.Tensor, length: tf.Tensor
    ) -> Outputs:
        most = self._graph.max_caption_tokens
        is_good = (length >= 0) & (length <= most)
        refusal = (
            f"`length`: expected a number of tokens from 1 to {most}, or 0 to "
            "leave it free, found " + tf.strings.as_string(length) + "."
        )
        return {
            **self._write(embedding, tf.where(is_good, length, 0)),
            contract.ERROR: tf.where(is_good, "", refusal),
        }

    def _embed(self, embedding: tf.Tensor) -> Outputs:
        return {contract.IMAGE_EMBEDDING: embedding}

    def _fill_mask(self, embedding: tf.Tensor, text: tf.Tensor) -> Outputs:
        graph = self._graph
        token_ids, refused = self._texts.encode_templates(text)
        predictor = graph.predictor(embedding)
        # As `fill_templates` without gaps, in a smaller graph.
        filled = fill_masks(
            predictor, token_ids, options=graph.default_options()
        )
        # (batch, max_caption_tokens, NUM_CANDIDATES) both: for each mask, from
        # the left, the likeliest tokens while all other masks are masks.
        tokens, probabilities = mask_candidates(
            predictor,
            token_ids,
            count=NUM_CANDIDATES,
            max_caption_tokens=graph.max_caption_tokens,
        )
        candidates = graph.tokenizer.decode_tensor(tf.reshape(tokens, (-1, 1)))
        return {
            contract.TEXT: graph.tokenizer.decode_tensor(filled),
            contract.CANDIDATES: tf.reshape(candidates, tf.shape(tokens)),
            contract.CANDIDATE_PROBABILITIES: probabilities,
            contract.ERROR: refused,
        }

    def _score_caption(self, embedding: tf.Tensor, text: tf.Tensor) -> Outputs:
        graph = self._graph
        token_ids, refused = self._texts.encode_captions(
            text, drop_final_period=graph.settings.batches.drop_final_period
        )
        scores = score_tokens(graph.predictor(embedding), token_ids)
        total = tf.reduce_sum(scores, axis=1)
        is_token = tf.not_equal(token_ids, graph.tokenizer.pad_token_id)
        # `[CLS]` and `[SEP]` have no score.
        count = tf.reduce_sum(tf.cast(is_token, tf.float32), axis=1) - 2.0
        return {
            contract.SCORE: total / count,
            contract.TOTAL_SCORE: total,
            contract.ERROR: refused,
        }

    # === Signatures of embeddings ===

    def _caption_embedding(self, image_embedding: tf.Tensor) -> Outputs:
        free = tf.zeros(tf.shape(image_embedding)[:1], tf.int32)
        return dict(self._write(image_embedding, free))

    def _masked_lm(
        self,
        token_ids: tf.Tensor,
        padding_mask: tf.Tensor,
        image_embedding: tf.Tensor,
    ) -> Outputs:
        logits = self._graph.model.token_logits(
            token_ids, padding_mask, image_embedding
        )
        return {contract.LOGITS: tf.cast(logits, tf.float32)}

    # === What signatures share ===

    def _read_and_embed_images(
        self, image_bytes: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # A bad image is read as a black one, and has an error.
        pixels, errors = self._graph.pixel_reader.read_batch(image_bytes)
        return self._graph.embed_pixels(pixels), errors

    def _write_captions(
        self, image_embedding: tf.Tensor, length: tf.Tensor
    ) -> Outputs:
        most = self._graph.max_caption_tokens
        free = tf.equal(length, 0)
        shortest = tf.where(free, 1, length)
        longest = tf.where(free, most, length)
        written = mask_predict(
            self._graph.predictor(image_embedding),
            options=self._graph.default_options(),
            length_bounds=tf.stack([shortest, longest], axis=1),
        )
        # (batch, one caption, ...)
        outputs = {name: written[name][:, 0] for name in _WRITTEN}
        caption = self._graph.tokenizer.decode_tensor(
            outputs[contract.TOKEN_IDS]
        )
        return {contract.CAPTION: caption, **outputs}


def _trace(run: Callable[..., Outputs], *specs: tf.TensorSpec) -> Any:
    return tf.function(run).get_concrete_function(*specs)
