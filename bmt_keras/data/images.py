"""One way from an encoded image to pixels, for training and for serving.

The TensorFlow ops below give what OpenCV gives for
`cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)` followed by
`cv2.cvtColor(…, cv2.COLOR_BGR2RGB)` and `cv2.resize(…)`, within one level of
255, and can be exported.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from bmt_keras.data.image_headers import first_frame
from bmt_keras.data.untuned import without_tuning
from bmt_keras.image_files import read_image

# Raised when the pixels of an image change, so that old caches are refused.
PREPROCESSING_VERSION = 1

UNDECODABLE = "not a decodable image (JPEG, PNG, GIF, BMP or WebP expected)"
TOO_LARGE = "too large an image"
MAX_PIXELS = 2**26  # 8192 x 8192: 192 MiB when decoded

# Batches read at once, each of four images at a time.
_READERS = max(2, (os.cpu_count() or 1) // 4)

# TensorFlow takes the palette's indices of such a BMP for levels of grey.
_BMP_WITH_PALETTE = r"BM\C{26}\x08\x00\x00{4}\C*"
# TensorFlow must decode a WebP that has four channels as such. They are found
# here: where it finds them by itself, it overruns its memory on an animation.
_WEBP_WITH_ALPHA = (
    r"RIFF\C{4}WEBP"
    r"(VP8X\C{4}[\x10\x14\x18\x1c\x30\x34\x38\x3c]|VP8L\C{8}[\x10-\x1f])\C*"
)


def decode_rgb(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes one image.

    An EXIF rotation is ignored, as is an alpha channel; transparent pixels of
    a GIF are black. Of an animated GIF the first frame counts, an animated
    WebP is refused.

    Args:
        image_bytes: string, (). JPEG, PNG, GIF, BMP or WebP.

    Returns:
        uint8, (height, width, 3), RGB.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are none of these formats.
    """
    header = tf.strings.substr(image_bytes, 0, 64)
    has_palette = tf.strings.regex_full_match(header, _BMP_WITH_PALETTE)
    has_alpha = tf.strings.regex_full_match(header, _WEBP_WITH_ALPHA)

    def decode(channels: int) -> tf.Tensor:
        return tf.io.decode_image(
            image_bytes, channels=channels, expand_animations=False
        )

    def decode_jpeg() -> tf.Tensor:
        # OpenCV's transform; TensorFlow's default differs by several levels.
        return tf.io.decode_jpeg(
            image_bytes, channels=3, dct_method="INTEGER_ACCURATE"
        )

    pixels = tf.case(
        [
            (tf.io.is_jpeg(image_bytes), decode_jpeg),
            (has_palette, lambda: _decode_palette(image_bytes)),
            (has_alpha, lambda: decode(4)[..., :3]),
        ],
        default=lambda: decode(3),
    )
    return tf.ensure_shape(pixels, (None, None, 3))


def resize_pixels(pixels: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resizes bilinearly, without antialiasing, as OpenCV's default does.

    Args:
        pixels: uint8, (..., height, width, 3), of any size.
        height: Wanted height in pixels.
        width: Wanted width in pixels.

    Returns:
        uint8, (..., height, width, 3).
    """
    # OpenCV rounds to whole levels; a cast alone would cut off.
    resized = tf.image.resize(pixels, (height, width), method="bilinear")
    return tf.cast(tf.round(resized), tf.uint8)


def read_pixels(image_bytes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Decodes one image and resizes it: uint8, (height, width, 3), RGB."""
    return resize_pixels(decode_rgb(image_bytes), height, width)


def read_pixels_or_error(
    image_bytes: tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and resizes a batch of images, of which some may be broken.

    An image of more than `MAX_PIXELS` is not decoded. The ops are TensorFlow's
    own and run in a SavedModel.

    Args:
        image_bytes: string, (batch,).
        height: Wanted height in pixels.
        width: Wanted width in pixels.

    Returns:
        Two tensors: uint8, (batch, height, width, 3), black where the image
        is broken; and string, (batch,), empty where the image is good.
    """
    # A decoding op that fails takes the whole batch with it. A `tf.data` map
    # can drop what fails, and what it left out becomes a black picture.
    count = tf.size(image_bytes, out_type=tf.int64)
    # Read last, so that there is a batch even if all images fail.
    broken = (tf.zeros((height, width, 3), tf.uint8), "", count)
    decoded = (
        tf.data.Dataset.from_tensor_slices((image_bytes, tf.range(count)))
        .map(
            lambda row, index: (*_read_if_small(row, height, width), index),
            num_parallel_calls=4,
        )
        .ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors(broken))
        .batch(count + 1)
    )
    pixels, errors, indices = without_tuning(decoded).get_single_element()
    good = tf.size(indices, out_type=tf.int64) - 1
    slots = tf.tensor_scatter_nd_update(
        tf.fill((count + 1,), good), indices[:, None], tf.range(good + 1)
    )[:count]
    size = tf.strings.as_string(tf.strings.length(image_bytes))
    undecodable = tf.strings.join([UNDECODABLE, "; received ", size, " bytes."])
    errors = tf.where(slots < good, tf.gather(errors, slots), undecodable)
    pixels = tf.ensure_shape(tf.gather(pixels, slots), (None, height, width, 3))
    return pixels, errors


def decode_images(
    paths: Sequence[Path], *, height: int, width: int, batch_size: int = 16
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Reads image files batch by batch, ahead of the consumer.

    Yields:
        A batch's pixels, uint8, (batch, height, width, 3), and its errors,
        empty where an image is good.
    """

    def read_files(indices: np.ndarray) -> tuple[np.ndarray, ...]:
        files = zip(*(read_image(paths[i]) for i in indices), strict=True)
        # Of objects: a dtype of bytes would lose zeros at a file's end.
        return tuple(np.array(column, dtype=object) for column in files)

    def read(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        files, faults = tf.numpy_function(
            read_files, [indices], (tf.string, tf.string)
        )
        pixels, errors = read_pixels_or_error(
            tf.ensure_shape(files, (None,)), height, width
        )
        return pixels, tf.where(faults == "", errors, faults)

    dataset = (
        tf.data.Dataset.range(len(paths))
        .batch(batch_size)
        .map(read, num_parallel_calls=_READERS)
        .prefetch(_READERS)
    )
    rows = without_tuning(dataset).as_numpy_iterator()
    for pixels, errors in rows:
        yield pixels, [error.decode() for error in errors]


def _read_if_small(
    image_bytes: tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    frame, count = first_frame(image_bytes)
    # An unknown format fails here: TensorFlow's decoder may know it.
    with tf.control_dependencies([tf.debugging.assert_positive(count)]):
        is_small = count <= MAX_PIXELS

    def refuse() -> tuple[tf.Tensor, tf.Tensor]:
        message = TOO_LARGE + "; received {} pixels, expected at most {}."
        return (
            tf.zeros((height, width, 3), tf.uint8),
            tf.strings.format(message, (count, MAX_PIXELS)),
        )

    return tf.cond(
        is_small, lambda: (read_pixels(frame, height, width), ""), refuse
    )


def _decode_palette(bmp_bytes: tf.Tensor) -> tf.Tensor:
    """Looks up the colours of a BMP with eight bits per pixel."""

    def number_at(offset: int) -> tf.Tensor:
        number = tf.strings.substr(bmp_bytes, offset, 4)
        return tf.io.decode_raw(number, tf.int32)[0]

    start, end = 14 + number_at(14), number_at(10)
    colours = tf.strings.substr(bmp_bytes, start, end - start)
    # Stored as blue, green, red and a spare byte.
    palette = tf.reshape(tf.io.decode_raw(colours, tf.uint8), (-1, 4))
    indices = tf.io.decode_bmp(bmp_bytes)[..., 0]
    return tf.gather(palette[:, 2::-1], tf.cast(indices, tf.int32))
