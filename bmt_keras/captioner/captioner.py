"""The captioner: what users call."""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from bmt_keras.captioner.feature_captioner import FeatureCaptioner
from bmt_keras.captioner.folder import load_parts, save_parts
from bmt_keras.captioner.lengths import Length, check_lengths
from bmt_keras.captioner.photos import Image, PhotoReader, photos_at_once
from bmt_keras.captioner.results import Caption, Score, to_captions, to_scores
from bmt_keras.captioner.texts import (
    encode_captions,
    encode_keywords,
    encode_templates,
    pair_with_texts,
)
from bmt_keras.decoding import GAP
from bmt_keras.errors import InputError

_GAP_CANDIDATES = 8  # widths of gaps tried for a template


class Captioner(FeatureCaptioner):
    """Writes, completes and judges captions of photos.

    A photo is a path, encoded bytes, or RGB, uint8, (height, width, 3).

    Args:
        model: The masked language model.
        tokenizer: Its tokenizer.
        settings: Its settings; image size and decoding are read.
        image_tower: The frozen model of the embeddings that `model` takes;
            None if `model` encodes pixels by itself.
        length_counts: How many training captions had 0, 1, 2 … tokens; used
            where the model has no length head.
        calibration: Turns log-probabilities into confidences; None leaves
            them as they are.

    Example:
        >>> captioner = Captioner.load("runs/sample/captioner")
        >>> captioner.caption(["photo.jpg"])[0].text
        >>> captioner.fill_mask("photo.jpg", "a [MASK] square …")[0].text
        >>> captioner.rank("photo.jpg", ["a red square", "a dog"])[0].text
    """

    @cached_property
    def _reader(self) -> PhotoReader:
        return PhotoReader(self.graph)

    def caption(
        self,
        images: Iterable[Image],
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
    ) -> list[Caption]:
        """Writes captions of photos.

        Args:
            images: Photos.
            passes: Parallel passes; None for the settings'.
            length: Tokens of a caption, or the fewest and most; None lets the
                model choose.
            num_captions: Captions of each photo, different where possible.
            temperature: 0 writes the likeliest words, more draws them.
            top_p: Words are drawn from the likeliest ones that together have
                this probability.
            keywords: Words or phrases that stand in every caption.
            template: Complete this, as `fill_mask` does; it goes with `passes`
                alone.
            seed: Of the draws, which depend on `batch_size`, too.
            batch_size: Photos at once; fewer where many captions are written
                side by side for each.

        Returns:
            The captions in the photos' order, those of a photo next to each
            other, its best first: by `score` and what else the settings
            choose by.

        Raises:
            InputError: A photo cannot be read, or an option is out of range.
        """
        if template is not None:
            others = (length, num_captions, temperature, top_p)
            if keywords or others != (None, 1, 0.0, 1.0):
                raise InputError(
                    "`template` goes with `passes` alone. Received another "
                    f"control beside template={template!r}."
                )
            return self.fill_mask(
                images, template, passes=passes, batch_size=batch_size
            )
        options = self._options(
            passes=passes,
            num_captions=num_captions,
            temperature=float(temperature),
            top_p=float(top_p),
        )
        words = self.graph.max_caption_tokens
        shortest, longest = check_lengths(
            length, options, max_caption_tokens=words
        )
        tokens = None
        if keywords:
            tokens = encode_keywords(
                keywords, self.tokenizer, max_caption_tokens=longest
            )
        captions: list[Caption] = []
        batch_size = photos_at_once(batch_size, options.rows)
        for start, pixels in self._reader.read_batches(images, batch_size):
            written = self._traces.write(
                pixels,
                dataclasses.replace(options, seed=(seed, start)),
                length_bounds=(shortest, longest),
                keywords=tokens,
            )
            captions += to_captions(written, self.tokenizer, self.calibration)
        return captions

    def features(
        self, images: Iterable[Image], *, batch_size: int = 32
    ) -> np.ndarray:
        """Reads photos into what the model takes of them.

        Args:
            images: Photos.
            batch_size: Photos at once.

        Returns:
            (photos, ...) uint8 pixels of the model's size if the model encodes
            them, else image embeddings, float16.

        Raises:
            InputError: A photo cannot be read, or there is none.
        """
        batches = []
        for _, pixels in self._reader.read_batches(images, batch_size):
            if self.model.image_tower is None:
                embedding = self._traces.embed(pixels)
                batches.append(embedding.astype(np.float16))
            else:
                batches.append(pixels)
        if not batches:
            raise InputError("Expected photos, found none.")
        return np.concatenate(batches)

    def fill_mask(
        self,
        images: Image | Iterable[Image],
        texts: str | Sequence[str],
        *,
        passes: int | None = None,
        batch_size: int = 32,
    ) -> list[Caption]:
        """Completes captions; the given tokens stay as they are.

        Args:
            images: A photo for each text, or one for all.
            texts: Captions with `[MASK]` for a missing token and "…" or "..."
                for one or more; one for each photo, or one for all.
            passes: Parallel passes; None for the settings'.
            batch_size: Texts at once.

        Raises:
            InputError: A text is empty, has nothing to fill, is too long or
                has unknown words; or the counts differ.
        """
        photos, texts = pair_with_texts(images, texts)
        templates = encode_templates(
            texts,
            self.tokenizer,
            max_caption_tokens=self.graph.max_caption_tokens,
        )
        candidates = _GAP_CANDIDATES if (templates == GAP).any() else 1
        options = self._options(passes=passes, length_candidates=candidates)
        captions: list[Caption] = []
        for start, pixels in self._reader.read_batches(photos, batch_size):
            rows = templates[start : start + batch_size]
            written = self._traces.fill(pixels, options, rows)
            captions += to_captions(written, self.tokenizer, self.calibration)
        return captions

    def score(
        self,
        images: Image | Iterable[Image],
        texts: str | Sequence[str],
        *,
        batch_size: int = 16,
    ) -> list[Score]:
        """Tells how likely the model finds captions of photos.

        Each token is masked in turn: pseudo-log-likelihood.

        Args:
            images: A photo for each text, or one for all.
            texts: Captions; one for each photo, or one for all.
            batch_size: Texts at once; each takes a row a token.

        Raises:
            InputError: A text is empty or too long, or the counts differ.
        """
        photos, texts = pair_with_texts(images, texts)
        token_ids = encode_captions(
            self.plain_captions(texts),
            self.tokenizer,
            max_caption_tokens=self.graph.max_caption_tokens,
        )
        scores: list[Score] = []
        for start, pixels in self._reader.read_batches(photos, batch_size):
            rows = slice(start, start + batch_size)
            values = self._traces.score(pixels, token_ids[rows])
            scores += to_scores(
                texts[rows], token_ids[rows], values, self.tokenizer
            )
        return scores

    def rank(self, image: Image, texts: Sequence[str]) -> list[Score]:
        """Scores captions of one photo: the best mean score first."""
        scores = self.score(image, texts)
        return sorted(scores, key=lambda score: score.mean, reverse=True)

    def save(self, folder: str | Path) -> None:
        """Writes the captioner's folder; an earlier one there is replaced.

        Raises:
            InputError: The folder holds something else.
        """
        save_parts(self.graph, Path(folder), calibration=self.calibration)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        mbr_samples: int | None = None,
        rerank_top: int | None = None,
    ) -> "Captioner":
        """Reads a folder that `save` wrote; the model can be trained on.

        Args:
            folder: The folder.
            mbr_samples: Captions drawn beside the candidates to find the
                one that all resemble most; None for as many as were saved.
            rerank_top: Best captions that are read once more before one is
                chosen; None for as many as were saved.

        Raises:
            InputError: The folder is missing or holds no captioner, or a
                number is negative.
        """
        parts = load_parts(Path(folder))
        given = {"mbr_samples": mbr_samples, "rerank_top": rerank_top}
        changes = {k: v for k, v in given.items() if v is not None}
        parts["settings"] = dataclasses.replace(parts["settings"], **changes)
        return cls(**parts)
