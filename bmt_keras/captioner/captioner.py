"""The captioner: what users call."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from bmt_keras.captioner.captions import (
    Calibration,
    Caption,
    to_captions,
    to_score,
)
from bmt_keras.captioner.folder import load_parts, save_parts
from bmt_keras.captioner.graph import CaptionGraph, TracedGraph
from bmt_keras.captioner.inputs import (
    Bad,
    Image,
    ImageReader,
    Length,
    check_lengths,
    encode_captions,
    encode_keywords,
    encode_templates,
    pad_rows,
)
from bmt_keras.data.captions import drop_final_period
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding import (
    GAP,
    DecodingOptions,
    fill_templates,
    guess_tokens,
    mask_predict,
    score_tokens,
)
from bmt_keras.errors import InputError
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.settings import DecodingSettings, Settings

_GAP_CANDIDATES = 8  # widths of gaps tried for a template
# Candidates written side by side: more take memory and no less time.
_CANDIDATES_AT_ONCE = 256


class Captioner:
    """Writes, completes and judges captions of images.

    An image is a path, an address (http or https), encoded bytes, a file opened
    for bytes, an image of Pillow, pixels (grey, RGB or RGBA, uint8 or floats in
    [0, 1] or [0, 255]), or a row of what `read_features` gave for it. Many are
    an iterable of them or an array. One image gives one result, many a list.

    Args:
        model: The masked language model.
        tokenizer: Its tokenizer.
        settings: Of these, image size, sequence length and decoding are read.
        image_tower: The frozen model of the embeddings that `model` takes;
            None if `model` embeds pixels by itself.
        length_counts: How many training captions had 0, 1, 2 … tokens; used
            where the model has no length head.
        calibration: For confidences; None takes probabilities as they are.

    Example:
        >>> captioner = Captioner.from_preset("runs/sample/captioner")
        >>> captioner.caption("photo.jpg").text
        'a red square above a blue circle'
        >>> [each.text for each in captioner.caption(["a.jpg", "b.jpg"])]
        ['a green star', 'a red square above a blue circle']
        >>> captioner.fill_mask("photo.jpg", "a [MASK] square …").text
        'a red square above a circle'
        >>> captioner.rank("photo.jpg", ["a red square", "a dog"])[0].text
        'a red square'
    """

    def __init__(
        self,
        model: BimodalMaskedLM,
        tokenizer: CaptionTokenizer,
        *,
        settings: Settings,
        image_tower: keras.Model | None = None,
        length_counts: Sequence[int] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.graph = CaptionGraph(
            model, tokenizer, settings, image_tower, length_counts
        )
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.image_tower = self.graph.image_tower
        self.calibration = calibration or Calibration()
        self._reader = ImageReader(self.graph)
        self._traced = TracedGraph(self.graph)

    @classmethod
    def from_preset(cls, folder: str | Path, **decoding: Any) -> "Captioner":
        """Reads a captioner's folder; the model can be trained on.

        Args:
            folder: A folder of `save_to_preset`, or one on the Hugging Face
                hub, `hf://organisation/name`, with or without `@revision`.
            **decoding: Fields of `DecodingSettings`; None keeps the saved one.

        Raises:
            InputError: The folder is missing or holds no captioner, or a field
                is unknown or out of range.

        Example:
            >>> captioner = Captioner.from_preset("runs/small/captioner",
            ...                                   passes=4, mbr_samples=16)
        """
        names = [each.name for each in dataclasses.fields(DecodingSettings)]
        if unknown := decoding.keys() - set(names):
            raise InputError(
                f"Decoding options must be some of {', '.join(names)}. "
                f"Received: {', '.join(sorted(unknown))}."
            )
        parts = load_parts(folder)
        # None is a command's option that was not given.
        given = {k: v for k, v in decoding.items() if v is not None}
        parts["settings"] = parts["settings"].replace(**given)
        return cls(**parts)

    def save_to_preset(self, folder: str | Path) -> None:
        """Writes the captioner's folder; an earlier one there is replaced.

        Raises:
            InputError: The folder holds something else.
        """
        save_parts(self.graph, Path(folder), calibration=self.calibration)

    # === Images and texts ===

    def caption(
        self,
        images: Image | Iterable[Image],
        *,
        passes: int | None = None,
        length: Length = None,
        num_captions: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        keywords: Sequence[str] | None = None,
        template: str | None = None,
        seed: int = 0,
        batch_size: int = 32,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> Any:
        """Writes captions of images.

        Args:
            images: An image, or many.
            passes: Parallel passes; None for the settings'.
            length: Tokens of a caption, or the fewest and most, of which None
                is no bound; None lets the model choose.
            num_captions: Captions of each image, different where possible.
            temperature: 0 writes the likeliest tokens, more samples them.
            top_p: Sample among the likeliest tokens of this probability.
            keywords: Words or phrases that stand in every caption.
            template: Complete this, as `fill_mask`; goes with `passes` alone.
            seed: Of the samples, which depend on `batch_size`, too.
            batch_size: Images at once; fewer where each has many candidates.
            on_error: `"skip"` gives None for a bad image, and logs its name.

        Returns:
            A `Caption`, or a list of them in the images' order. With
            `num_captions` above 1 a list of captions takes the place of each,
            the best first: by `score` and what else the settings choose by.

        Raises:
            InputError: An image cannot be read, or an option is out of range.

        Example:
            >>> captioner.caption("photo.jpg", length=(4, 8), keywords=["red"])
            >>> first, *others = captioner.caption("photo.jpg", num_captions=3)
        """
        if template is not None:
            others = (length, num_captions, temperature, top_p)
            if keywords or others != (None, 1, 0.0, 1.0):
                raise InputError(
                    "`template` goes with `passes` alone. Received: another "
                    f"control with template={template!r}."
                )
            return self.fill_mask(
                images,
                template,
                passes=passes,
                batch_size=batch_size,
                on_error=on_error,
            )
        options = self._options(
            passes=passes,
            num_captions=num_captions,
            temperature=float(temperature),
            top_p=float(top_p),
        )
        bounds = check_lengths(length, options, self.graph.max_caption_tokens)
        arrays = {"length_bounds": np.array(bounds, np.int32)}
        if keywords:
            words = encode_keywords(keywords, self.tokenizer, bounds[1])
            arrays["keywords"] = words[None]  # the same for all images
        batch, is_one = self._reader.to_batch(images)
        most = _CANDIDATES_AT_ONCE // options.num_candidates
        batch_size = min(batch_size, max(most, 1))
        bad: Bad = {} if on_error == "skip" else None
        captions: list[list[Caption]] = []
        for rows, values in self._reader.read_batches(batch, batch_size, bad):
            # Batches draw apart, and the same again at the next call.
            seeded = dataclasses.replace(options, seed=(seed, rows.start))
            written = self._traced.run(
                mask_predict, values, options=seeded, **arrays
            )
            captions += to_captions(written, self.tokenizer, self.calibration)
        results: list[Any] = captions
        if num_captions == 1:
            results = [own for (own,) in captions]
        for number in bad or ():
            results[number] = None
        return results[0] if is_one else results

    def fill_mask(
        self,
        images: Image | Iterable[Image],
        texts: str | Sequence[str],
        *,
        passes: int | None = None,
        batch_size: int = 32,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> Any:
        """Completes captions; the given tokens stay as they are.

        Args:
            images: An image for each text, or one for all.
            texts: Captions with `[MASK]` for a missing token and "…" or "..."
                for one or more; one for each image, or one for all.
            passes: Parallel passes; None for the settings'.
            batch_size: Texts at once.
            on_error: As for `caption`.

        Returns:
            A `Caption` for one image and one text, else a list of them.

        Raises:
            InputError: A text is empty, has nothing to fill, is too long or
                has unknown words; or the counts differ.
        """
        batch, texts, is_one = self._reader.pair_with_texts(images, texts)
        templates = encode_templates(
            texts, self.tokenizer, self.graph.max_caption_tokens
        )
        # A gap may have any width: several are tried, as lengths are.
        candidates = _GAP_CANDIDATES if (templates == GAP).any() else 1
        options = self._options(passes=passes, length_candidates=candidates)
        bad: Bad = {} if on_error == "skip" else None
        captions: list[Caption | None] = []
        for written in self._run(
            fill_templates,
            batch,
            batch_size,
            bad=bad,
            options=options,
            templates=templates,
        ):
            own = to_captions(written, self.tokenizer, self.calibration)
            captions += [caption for (caption,) in own]
        for number in bad or ():
            captions[number] = None
        return captions[0] if is_one else captions

    def score(
        self,
        images: Image | Iterable[Image],
        texts: str | Sequence[str],
        *,
        batch_size: int = 16,
    ) -> Any:
        """Tells how likely the model finds captions of images.

        Each token is masked in turn: pseudo-log-likelihood.

        Args:
            images: An image for each text, or one for all.
            texts: Captions; one for each image, or one for all.
            batch_size: Texts at once; each takes a candidate per token.

        Returns:
            A `Score` for one image and one text, else a list of them.

        Raises:
            InputError: A text is empty or too long, or the counts differ.
        """
        batch, texts, is_one = self._reader.pair_with_texts(images, texts)
        token_ids = encode_captions(
            self._as_trained(texts),
            self.tokenizer,
            self.graph.max_caption_tokens,
        )
        values = self._score(batch, token_ids, batch_size)
        scores = [
            to_score(*each, self.tokenizer)
            for each in zip(texts, token_ids, values, strict=True)
        ]
        return scores[0] if is_one else scores

    def rank(
        self, images: Image | Iterable[Image], texts: Sequence[str]
    ) -> Any:
        """Scores the same captions for each image.

        Returns:
            A list of `Score`, the best mean first; of many images one for each.

        Raises:
            InputError: As `score`.
        """
        batch, is_one = self._reader.to_batch(images)
        # Image by image: the reader decodes one with several texts once.
        ranked = [
            sorted(self.score(image, list(texts)), key=lambda each: -each.mean)
            for image in batch
        ]
        return ranked[0] if is_one else ranked

    # === Features: images read and embedded once, for many calls ===

    def read_features(
        self, images: Image | Iterable[Image], *, batch_size: int = 32
    ) -> np.ndarray:
        """Reads images into what the model takes.

        Args:
            images: Images; one is taken for a list of one.
            batch_size: Images at once.

        Returns:
            (images, ...): uint8 pixels of the model's size if the model embeds
            them, else image embeddings, float16.

        Raises:
            InputError: An image cannot be read, or there is none.
        """
        batch, _ = self._reader.to_batch(images)
        features = []
        for _, values in self._reader.read_batches(batch, batch_size):
            if self.model.image_tower is None:
                embedding = self._traced.embed_pixels(values)
                values = embedding.numpy().astype(np.float16)
            features.append(values)
        if not features:
            raise InputError("Expected images, found none.")
        return np.concatenate(features)

    def score_features(
        self, features: np.ndarray, texts: Sequence[str]
    ) -> list[float]:
        """Scores captions of images; any caption has a score.

        Args:
            features: (captions, ...), of `read_features`.
            texts: A caption for each row; too long ones lose their last tokens.

        Returns:
            The mean log-probability per token of each caption, in nats.
        """
        token_ids = self.encode(texts)
        is_used = token_ids != self.tokenizer.pad_token_id
        # `[CLS]` and `[SEP]` have no score; a caption may have no word.
        counts = np.maximum(is_used.sum(axis=1) - 2, 1).tolist()
        values = self._score(features, token_ids, batch_size=100)
        return [
            float(each.sum() / count)
            for each, count in zip(values, counts, strict=True)
        ]

    def guess_tokens(
        self, features: np.ndarray, token_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest token at each position of captions with masks.

        Args:
            features: (captions, ...), of `read_features`.
            token_ids: int32, (captions, length), `[CLS]` … `[SEP]`, padded.

        Returns:
            Tokens, int32, and log-probabilities, float32: (captions, length).
        """
        batches = [*self._run(guess_tokens, features, 64, token_ids=token_ids)]
        tokens, log_probs = zip(*batches, strict=True)
        return np.concatenate(tokens), np.concatenate(log_probs)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes captions as training did: int32, (captions, length), padded.

        Longer ones than the model's longest lose their last tokens.
        """
        rows = self.tokenizer.encode(
            self._as_trained(texts),
            sequence_length=self.settings.text.sequence_length,
        )
        return pad_rows(rows, self.tokenizer.pad_token_id)

    def __repr__(self) -> str:
        """Names the parts and how captions are decoded."""
        image, model = self.settings.image, self.model
        return (
            "Captioner(\n"
            f"  image_tower={image.model}, {image.height}x{image.width} "
            f"pixels to {model.image_embedding_shape},\n"
            f"  text_tower={type(model.text_tower).__name__},\n"
            f"  fusion={type(model.fusion).__name__},\n"
            f"  vocabulary_size={self.tokenizer.vocabulary_size},\n"
            f"  sequence_length={self.settings.text.sequence_length},\n"
            f"  decoding={self.settings.decoding},\n"
            ")"
        )

    def _options(self, **changes: Any) -> DecodingOptions:
        given = {k: v for k, v in changes.items() if v is not None}
        return dataclasses.replace(self.graph.default_options(), **given)

    def _run(
        self,
        step: Callable[..., Any],
        images: Iterable[Image],
        batch_size: int,
        *,
        bad: Bad = None,
        options: DecodingOptions | None = None,
        **tables: np.ndarray,
    ) -> Iterator[Any]:
        """Runs a step batch by batch; `tables` have a row per image."""
        for rows, values in self._reader.read_batches(images, batch_size, bad):
            own = {name: table[rows] for name, table in tables.items()}
            yield self._traced.run(step, values, options=options, **own)

    def _score(
        self, images: Iterable[Image], token_ids: np.ndarray, batch_size: int
    ) -> list[np.ndarray]:
        """A row of log-probabilities, float32, (length,), for each caption."""
        batches = self._run(
            score_tokens, images, batch_size, token_ids=token_ids
        )
        return [row for values in batches for row in values]

    def _as_trained(self, texts: Sequence[str]) -> Sequence[str]:
        """Captions as training saw them, perhaps without their full stops."""
        if self.settings.batches.drop_final_period:
            return [drop_final_period(text) for text in texts]
        return texts
