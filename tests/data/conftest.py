"""Images of one colour each, so that a row tells which image it shows."""

import cv2
import numpy as np
import pytest

from bmt_keras.data.captions import CaptionedImage


@pytest.fixture
def make_images(tmp_path):
    """Writes images; the red level of each is ten times its image id."""

    def make(image_ids, *, captions=("a red square",), broken=()):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        images = []
        for image_id in image_ids:
            path = folder / f"{image_id}.png"
            pixels = np.full((5, 7, 3), (0, 0, 10 * image_id), np.uint8)
            encoded = cv2.imencode(".png", pixels)[1].tobytes()
            path.write_bytes(b"no image" if image_id in broken else encoded)
            images.append(CaptionedImage(image_id, path, tuple(captions)))
        return images

    return make
