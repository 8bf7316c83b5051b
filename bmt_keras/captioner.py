"""The captioner: model, tokenizer and image preprocessing in one folder."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from bmt_keras.atomic import write_folder_atomically
from bmt_keras.data.images import read_pixels_or_error, resize_pixels
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding import SpecialTokens, mask_predict
from bmt_keras.errors import InputError
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.settings import Settings

Image = str | Path | bytes | np.ndarray

_MODEL, _ENCODER = "model.keras", "image_encoder.keras"
_VOCABULARY, _SETTINGS = "spiece.model", "settings.json"
_LENGTHS = "lengths.json"


@dataclass(frozen=True)
class Caption:
    """A written caption.

    Attributes:
        text: The caption.
        score: Mean log-probability a token, in nats, at most 0.
        tokens: The caption's tokens.
        token_scores: Log-probability of each token when it was written.
        token_ids: (max_length,) their ids between `[CLS]` and `[SEP]`, padded.
    """

    text: str
    score: float
    tokens: tuple[str, ...]
    token_scores: tuple[float, ...]
    token_ids: tuple[int, ...]


class Captioner:
    """Writes captions of photos.

    Args:
        model: The masked language model.
        tokenizer: Its tokenizer.
        settings: Its settings; image size and decoding are read.
        image_encoder: The frozen model of the embeddings that `model` takes;
            None if `model` encodes pixels by itself.
        length_counts: How many training captions had 0, 1, 2 … tokens; used
            where the model has no length head.

    Example:
        >>> captioner = Captioner.load("runs/sample/captioner")
        >>> captioner.caption(["photo.jpg"])[0].text
    """

    def __init__(
        self,
        model: BimodalMaskedLM,
        tokenizer: CaptionTokenizer,
        *,
        settings: Settings,
        image_encoder: keras.Model | None = None,
        length_counts: Sequence[int] | None = None,
    ) -> None:
        """Assembles the captioner."""
        encoder = model.image_encoder or image_encoder
        if encoder is None:
            raise ValueError(
                "`image_encoder` must be given for a model that takes image "
                "embeddings. Received: image_encoder=None."
            )
        if model.length_head is None and length_counts is None:
            raise ValueError(
                "`length_counts` must be given for a model without a length "
                "head. Received: length_counts=None."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.image_encoder: keras.Model = encoder
        self.length_counts = length_counts
        self._write_pixels = tf.function(
            lambda pixels: self.write_captions(self.embed_pixels(pixels)),
            input_signature=[tf.TensorSpec((None, *self._pixels), tf.uint8)],
        )
        self._write_embedding = tf.function(
            self.write_captions,
            input_signature=[
                tf.TensorSpec((None, *self.embedding_shape), tf.float32)
            ],
        )

    @property
    def _pixels(self) -> tuple[int, int, int]:
        return self.settings.image_height, self.settings.image_width, 3

    @property
    def embedding_shape(self) -> tuple[int, ...]:
        """Shape of a photo's embedding, without batch."""
        return self.model.image_embedding_shape

    # === In the graph: shared with the export ===

    def read_pixels(self, image_bytes: tf.Tensor) -> tuple[Any, Any]:
        """Decodes and resizes photos as training did.

        Args:
            image_bytes: string, (batch,).

        Returns:
            uint8 pixels, (batch, height, width, 3), and errors, string,
            (batch,), empty where the photo is good.
        """
        height, width, _ = self._pixels
        return read_pixels_or_error(image_bytes, height, width)

    def embed_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """Encodes photos.

        Args:
            pixels: uint8, (batch, height, width, 3).

        Returns:
            float32, (batch, *embedding_shape).
        """
        images = tf.cast(pixels, tf.float32)
        embedding = self.image_encoder(images, training=False)
        return tf.cast(embedding, tf.float32)

    def write_captions(self, image_embedding: tf.Tensor) -> dict[str, Any]:
        """Writes captions from image embeddings, in the graph.

        Args:
            image_embedding: float32, (batch, *embedding_shape).

        Returns:
            The dictionary of `mask_predict` and `caption`, string, (batch,).
        """
        candidates = min(
            self.settings.length_candidates, self.settings.max_length - 2
        )
        repeated = tf.repeat(image_embedding, candidates, axis=0)
        written = mask_predict(
            lambda token_ids, padding_mask: self.model.token_logits(
                token_ids, padding_mask, repeated
            ),
            self._length_log_probs(image_embedding),
            special=self._special_tokens(),
            vocabulary_size=self.tokenizer.vocabulary_size,
            passes=self.settings.passes,
            length_candidates=candidates,
        )
        caption = self.tokenizer.decode_tensor(written["token_ids"])
        return {"caption": caption, **written}

    def _special_tokens(self) -> SpecialTokens:
        tokenizer = self.tokenizer
        return SpecialTokens(
            tokenizer.pad_id,
            tokenizer.cls_id,
            tokenizer.sep_id,
            tokenizer.mask_id,
            banned=tuple(tokenizer.special_token_ids),
        )

    def _length_log_probs(self, image_embedding: tf.Tensor) -> Any:
        if self.model.length_head is not None:
            logits = self.model.length_head(image_embedding, training=False)
            return ops.log_softmax(ops.cast(logits, "float32"))
        counts = np.asarray(self.length_counts, np.float32) + 1e-3
        prior = tf.constant(np.log(counts / counts.sum()))
        shape = (tf.shape(image_embedding)[0], prior.shape[0])
        return tf.ensure_shape(
            tf.broadcast_to(prior, shape), (None, prior.shape[0])
        )

    # === On photos ===

    def caption(
        self, images: Iterable[Image], *, batch_size: int = 32
    ) -> list[Caption]:
        """Writes a caption for each photo.

        Args:
            images: Paths, encoded photos as bytes, or RGB arrays, uint8,
                (height, width, 3), in any mixture.
            batch_size: Photos at once.

        Returns:
            The captions, in the photos' order.

        Raises:
            InputError: A photo cannot be read; it is named by path or place.
        """
        captions: list[Caption] = []
        chunk: list[np.ndarray] = []
        for place, image in enumerate(images):
            chunk.append(self._to_pixels(image, place))
            if len(chunk) == batch_size:
                captions += self._caption_chunk(chunk)
                chunk = []
        return captions + (self._caption_chunk(chunk) if chunk else [])

    def caption_features(
        self, features: np.ndarray, *, batch_size: int = 32
    ) -> list[Caption]:
        """Writes captions from what the model takes of photos.

        Args:
            features: (photos, ...) uint8 pixels of the model's size if the
                model encodes them, else image embeddings.
            batch_size: Photos at once.

        Returns:
            The captions, in the given order.
        """
        inside = self.model.image_encoder is not None
        write = self._write_pixels if inside else self._write_embedding
        dtype = np.uint8 if inside else np.float32
        captions: list[Caption] = []
        for start in range(0, len(features), batch_size):
            rows = np.asarray(features[start : start + batch_size], dtype)
            captions += self._to_captions(write(tf.constant(rows)))
        return captions

    def _caption_chunk(self, chunk: Sequence[np.ndarray]) -> list[Caption]:
        pixels = tf.constant(np.stack(chunk))
        return self._to_captions(self._write_pixels(pixels))

    def _to_pixels(self, image: Image, place: int) -> np.ndarray:
        height, width, _ = self._pixels
        if isinstance(image, np.ndarray):
            if (
                image.ndim != 3
                or image.shape[-1] != 3
                or image.dtype != np.uint8
            ):
                raise InputError(
                    f"images[{place}]: expected RGB pixels, uint8 (height, "
                    f"width, 3), found {image.dtype} {image.shape}."
                )
            return np.asarray(resize_pixels(tf.constant(image), height, width))
        name = f"images[{place}]"
        if not isinstance(image, bytes):
            name = str(image)
            try:
                image = Path(image).read_bytes()
            except OSError as err:
                raise InputError(
                    f"{name}: expected a photo, found no file that can be read."
                ) from err
        pixels, errors = self.read_pixels(tf.constant([image]))
        if error := errors.numpy()[0].decode():
            raise InputError(f"{name}: {error}")
        return np.asarray(pixels[0])

    def _to_captions(self, written: dict[str, tf.Tensor]) -> list[Caption]:
        arrays = {name: value.numpy() for name, value in written.items()}
        special = set(self.tokenizer.special_token_ids)
        captions = []
        for text, score, ids, scores in zip(
            arrays["caption"],
            arrays["score"],
            arrays["token_ids"],
            arrays["token_scores"],
            strict=True,
        ):
            words = [i for i, token in enumerate(ids) if token not in special]
            captions.append(
                Caption(
                    text=text.decode(),
                    score=float(score),
                    tokens=tuple(
                        self.tokenizer.vocabulary[ids[i]] for i in words
                    ),
                    token_scores=tuple(float(scores[i]) for i in words),
                    token_ids=tuple(int(i) for i in ids),
                )
            )
        return captions

    # === On disk ===

    def save(self, folder: str | Path) -> None:
        """Writes the captioner's folder beside its place, then renames it.

        Args:
            folder: Where; an earlier captioner there is replaced.

        Raises:
            InputError: The folder holds something else.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / _MODEL).is_file():
            raise InputError(
                f"{folder}: expected no folder, or a captioner's to replace; "
                "found something else. Give another folder."
            )
        with write_folder_atomically(folder, replace=True) as partial:
            self.model.save(partial / _MODEL)
            if self.model.image_encoder is None:
                self.image_encoder.save(partial / _ENCODER)
            self.tokenizer.save(partial / _VOCABULARY)
            self.settings.save(partial / _SETTINGS)
            if self.length_counts is not None:
                counts = [int(count) for count in self.length_counts]
                (partial / _LENGTHS).write_text(json.dumps(counts))

    @classmethod
    def load(cls, folder: str | Path) -> "Captioner":
        """Reads a folder that `save` wrote.

        Args:
            folder: The folder.

        Returns:
            The captioner, which captions as the saved one did and can be
            trained on.

        Raises:
            InputError: The folder is missing or holds no captioner.
        """
        folder = Path(folder)
        if not (folder / _MODEL).is_file():
            raise InputError(
                f"{folder}: expected a captioner's folder with {_MODEL}, found "
                "none; train one by `bmt train`."
            )
        encoder, lengths = folder / _ENCODER, folder / _LENGTHS
        return cls(
            _load_model(folder / _MODEL),
            CaptionTokenizer.from_file(folder / _VOCABULARY),
            settings=Settings.load(folder / _SETTINGS),
            image_encoder=_load_model(encoder) if encoder.is_file() else None,
            length_counts=(
                json.loads(lengths.read_text()) if lengths.is_file() else None
            ),
        )


def _load_model(path: Path) -> keras.Model:
    try:
        return keras.saving.load_model(path)
    except (ValueError, OSError, KeyError, TypeError) as err:
        raise InputError(
            f"{path}: expected a saved Keras model, found a file that does not "
            f"load: {err}"
        ) from err
