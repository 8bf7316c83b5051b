"""A photo made smaller, so that it fits into a message."""

import math

import numpy as np

_QUALITY = 90
_SMALLEST_SIDE = 32  # pixels; less is no photo any more


def shrink_photo(image_bytes: bytes, limit: int) -> bytes:
    """Encodes a photo anew as JPEG of at most so many bytes.

    It keeps its size in pixels if that is enough, else it is scaled down. A
    rotation that EXIF asks for is ignored, as the servers ignore it.

    Args:
        image_bytes: bytes. A photo in a format that OpenCV reads.
        limit: int. Bytes that the JPEG may have.

    Returns:
        bytes of the JPEG.

    Raises:
        ValueError: If the photo cannot be decoded, or cannot be so small.
    """
    import cv2

    pixels = _decode(image_bytes)
    height, width = pixels.shape[:2]
    scale = 1.0
    while min(height, width) * scale >= min(_SMALLEST_SIDE, height, width):
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        done, encoded = cv2.imencode(
            ".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
        if not done:
            break
        if len(encoded) <= limit:
            return encoded.tobytes()
        # Bytes go with the pixels; a tenth off, for they do so only roughly.
        scale *= min(0.9, 0.9 * math.sqrt(limit / len(encoded)))
    raise ValueError(
        f"A photo must be shrinkable to {limit} bytes. Received: "
        f"{width} x {height} pixels in {len(image_bytes)} bytes."
    )


def _decode(image_bytes: bytes) -> np.ndarray:
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(image_bytes, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError(
            "A photo that is shrunk must be one that OpenCV can decode. "
            f"Received: {len(image_bytes)} bytes that it cannot."
        )
    return pixels
