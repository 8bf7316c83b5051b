"""A photo with its caption and the captions by people, as a card in HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from bmt_keras.evaluation.page import to_data_url

_THUMBNAIL = 360  # pixels, the longer side
_JPEG_QUALITY = 78
_WORD_START = "\u2581"  # SentencePiece's sign for a space
_SHADE = "217,102,31"
_DARKEST = 0.8  # opacity of a token of no confidence


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo, what was written of it and how good that is.

    Attributes:
        image_id: The photo's id.
        path: The photo's file.
        caption: The written caption.
        tokens: Its tokens, perhaps with SentencePiece's sign for a space.
        token_scores: Log-probability of each token, in nats.
        score: Mean log-probability a token, in nats.
        references: Captions by people.
        cider_d: CIDEr-D of the caption, in [0, 10].
        correct: Whether the caption is true, where that is known.
    """

    image_id: int
    path: Path
    caption: str
    tokens: tuple[str, ...]
    token_scores: tuple[float, ...]
    score: float
    references: tuple[str, ...]
    cider_d: float
    correct: bool | None = None

    def __post_init__(self) -> None:
        """Checks that tokens and their scores are as many."""
        if len(self.tokens) != len(self.token_scores):
            raise ValueError(
                "`token_scores` must hold one score a token. Received: "
                f"{len(self.token_scores)} scores, {len(self.tokens)} tokens"
            )


def render_cards(photos: Sequence[CaptionedPhoto]) -> str:
    """Draws photos side by side, as many as the screen's width allows.

    Args:
        photos: The photos. One whose file cannot be read is told in words.

    Returns:
        HTML. A token is the darker the less sure it is; its title holds the
        probability.
    """
    return f'<div class="cards">{"".join(map(_render_card, photos))}</div>'


def _render_card(photo: CaptionedPhoto) -> str:
    facts = [
        f"Photo {photo.image_id}",
        f"CIDEr-D {photo.cider_d:.2f}",
        f"confidence {math.exp(photo.score):.2f}",
    ]
    if photo.correct is not None:
        facts.append("true" if photo.correct else "not true")
    references = "".join(
        f"<li>{escape(each)}</li>" for each in photo.references
    )
    tokens = _render_tokens(photo.tokens, photo.token_scores)
    return (
        f"<article>{_render_picture(photo)}\n"
        f"<div><h3>{escape(photo.caption) or '(no caption)'}</h3>\n{tokens}"
        f'<p class="note">{", ".join(facts)}</p>\n'
        f'<p class="note">Written by people:</p>\n<ul>{references}</ul></div>'
        "</article>\n"
    )


def _render_tokens(tokens: Sequence[str], scores: Sequence[float]) -> str:
    if not tokens:
        return ""
    spans = "".join(map(_render_token, tokens, scores))
    return f'<p class="tokens">{spans}</p>\n'


def _render_token(token: str, score: float) -> str:
    confidence = math.exp(min(score, 0.0))
    opacity = _DARKEST * (1 - confidence)
    text = escape(token.replace(_WORD_START, " "))
    return (
        f'<span title="{confidence:.2f}" '
        f'style="background:rgba({_SHADE},{opacity:.2f})">{text}</span>'
    )


def _render_picture(photo: CaptionedPhoto) -> str:
    thumbnail = _make_thumbnail(photo.path)
    if thumbnail is None:
        return '<div class="note">The photo cannot be read.</div>'
    alt = escape(f"Photo {photo.image_id}, captioned: {photo.caption}")
    address = to_data_url(thumbnail, "image/jpeg")
    return f'<img src="{address}" alt="{alt}">'


def _make_thumbnail(path: Path) -> bytes | None:
    """A small JPEG of the photo as the model sees it, unrotated."""
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        pixels = cv2.imdecode(
            content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except (OSError, cv2.error):
        return None
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return bytes(cv2.imencode(".jpg", small, quality)[1])
