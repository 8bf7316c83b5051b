"""A photo as all passes and rows of its captions read it."""

from typing import Any, NamedTuple


class ProjectedImage(NamedTuple):
    """What tokens read of photos.

    Attributes:
        cells: From `CrossAttentionFusion.project_image`.
        evidence: float, (photos, vocabulary_size), added to the logits; an
            empty tuple for a model without a concept head.
        token_shares: float32, (photos, vocabulary_size), the share of a
            photo's captions that the concept head expects to hold each token;
            likewise.
    """

    cells: Any
    evidence: Any
    token_shares: Any
