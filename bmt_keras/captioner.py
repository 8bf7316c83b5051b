"""The captioner: model, tokenizer and image preprocessing in one folder."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from bmt_keras.atomic import write_folder_atomically
from bmt_keras.caption_graph import CaptionGraph
from bmt_keras.data.images import resize_pixels
from bmt_keras.data.tokenizer import CaptionTokenizer
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
        self.graph = CaptionGraph(
            model,
            tokenizer,
            settings=settings,
            image_encoder=image_encoder,
            length_counts=length_counts,
        )
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.image_encoder = self.graph.image_encoder
        pixels = tf.TensorSpec((None, *self.graph.pixels_shape), tf.uint8)
        embedding = tf.TensorSpec(
            (None, *self.graph.embedding_shape), tf.float32
        )
        self._write_pixels = tf.function(
            lambda pixels: self.graph.write_captions(
                self.graph.embed_pixels(pixels)
            ),
            input_signature=[pixels],
        )
        self._write_embedding = tf.function(
            self.graph.write_captions, input_signature=[embedding]
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
        height, width, _ = self.graph.pixels_shape
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
        pixels, errors = self.graph.read_pixels(tf.constant([image]))
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
            if self.graph.length_counts is not None:
                counts = [int(count) for count in self.graph.length_counts]
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
