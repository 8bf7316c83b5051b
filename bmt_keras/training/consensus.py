"""Weights of captions by how much a photo's other captions agree with them."""

from collections.abc import Sequence

import numpy as np

from bmt_keras.data.coco import Photo
from bmt_keras.evaluation.cider_d import CiderD


def consensus_weights(
    photos: Sequence[Photo], strength: float
) -> dict[int, list[float]]:
    """Gives captions that agree with the others more weight.

    People describe a photo in ways of their own; a model that learns all of
    them alike writes a mixture. The weight of a caption is proportional to
    exp(strength * CIDEr-D against the photo's other captions).

    Args:
        photos: Photos with captions.
        strength: 0 weighs all captions alike.

    Returns:
        The weights of each photo's captions by image id; their mean is 1.

    Reference:
        Devlin et al. 2015, arXiv 1505.04467, who choose among captions by
        their consensus.
    """
    cider = CiderD({photo.image_id: photo.captions for photo in photos})
    weights = {}
    for photo in photos:
        scores = np.array(cider.score_references(photo.image_id))
        each = np.exp(strength * (scores - scores.max()))
        weights[photo.image_id] = (each / each.mean()).tolist()
    return weights
