"""Captions of photos that were read and embedded before."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bmt_keras.caption_graph import CaptionGraph
from bmt_keras.captioner.photos import photos_at_once
from bmt_keras.captioner.results import Caption, to_captions
from bmt_keras.captioner.texts import pad_rows
from bmt_keras.captioner.traces import CaptionTraces
from bmt_keras.data.captions import drop_final_period
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.decoding import DecodingOptions
from bmt_keras.errors import InputError
from bmt_keras.evaluation import Calibration
from bmt_keras.models import BimodalMaskedLM
from bmt_keras.settings import Settings


class FeatureCaptioner:
    """Writes and judges captions from what the model takes of photos.

    Evaluation asks for the captions of the same photos again and again, and
    reads each photo once. The arguments are those of `Captioner`.
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
        self.calibration = calibration or Calibration()
        self.graph = CaptionGraph(
            model,
            tokenizer,
            settings=settings,
            image_tower=image_tower,
            length_counts=length_counts,
        )
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.image_tower = self.graph.image_tower
        self._traces = CaptionTraces(self.graph)

    def caption_features(
        self,
        features: np.ndarray,
        *,
        passes: int | None = None,
        batch_size: int = 32,
    ) -> list[Caption]:
        """Writes captions from what the model takes of photos.

        Args:
            features: (photos, ...), of `features`.
            passes: Parallel passes; None for the settings'.
            batch_size: Photos at once; fewer where many captions are written
                side by side for each.
        """
        options = self._options(passes=passes)
        bounds = (1, self.graph.max_caption_tokens)
        captions: list[Caption] = []
        batch_size = photos_at_once(batch_size, options.rows)
        for start in range(0, len(features), batch_size):
            rows = self._to_input(features[start : start + batch_size])
            written = self._traces.write(rows, options, length_bounds=bounds)
            captions += to_captions(written, self.tokenizer, self.calibration)
        return captions

    def plain_captions(self, texts: Sequence[str]) -> Sequence[str]:
        """Captions as training saw them, perhaps without their full stops."""
        if self.settings.batches.drop_final_period:
            return [drop_final_period(text) for text in texts]
        return texts

    def guess_tokens(
        self, features: np.ndarray, token_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest token at each place of captions with masks.

        Args:
            features: (captions, ...), of `features`.
            token_ids: int32, (captions, length), `[CLS]` … `[SEP]`, padded.

        Returns:
            int32 and float32, (captions, length): tokens, and their
            log-probabilities.
        """
        return self._traces.guess(
            self._to_input(features), np.asarray(token_ids, np.int32)
        )

    def score_features(
        self,
        features: np.ndarray,
        texts: Sequence[str],
        *,
        batch_size: int = 100,
    ) -> list[float]:
        """Scores captions of photos by what the model takes of these.

        Args:
            features: (captions, ...), of `features`.
            texts: A caption for each row; longer ones than the model's longest
                lose their last tokens.
            batch_size: Captions at once.

        Returns:
            The mean log-probability a token of each caption.
        """
        length = self.settings.text.sequence_length
        rows = self.tokenizer.encode(
            self.plain_captions(texts), sequence_length=length
        )
        scores: list[float] = []
        for start in range(0, len(rows), batch_size):
            batch = slice(start, start + batch_size)
            token_ids = pad_rows(rows[batch], self.tokenizer.pad_token_id)
            values = self._traces.score(
                self._to_input(features[batch]), token_ids
            )
            counts = [max(len(row) - 2, 1) for row in rows[batch]]
            scores += (values.sum(axis=1) / counts).tolist()
        return scores

    def _to_input(self, features: np.ndarray) -> np.ndarray:
        inside = self.model.image_tower is not None
        return np.asarray(features, np.uint8 if inside else np.float32)

    def _options(
        self, *, passes: int | None = None, **changes: Any
    ) -> DecodingOptions:
        if passes is not None:
            changes["passes"] = passes
        try:
            return dataclasses.replace(self.graph.default_options(), **changes)
        except ValueError as err:
            raise InputError(str(err)) from err
