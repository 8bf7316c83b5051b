"""One way from an encoded photo to pixels, for training and for serving.

The TensorFlow ops below give what OpenCV gives for
`cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)` followed by
`cv2.cvtColor(…, cv2.COLOR_BGR2RGB)` and `cv2.resize(…)`, within one level of
255, and can be exported.
"""

import tensorflow as tf

from bmt_keras.data.image_headers import first_frame
from bmt_keras.data.untuned import without_tuning

# Raised when the pixels of a photo change, so that old caches are refused.
PREPROCESSING_VERSION = 1

UNDECODABLE = "not a decodable image (JPEG, PNG, GIF, BMP or WebP expected)"
TOO_LARGE = "too large an image"
MAX_PIXELS = 2**26  # 8192 x 8192: 192 MiB when decoded

# TensorFlow takes the palette's indices of such a BMP for levels of grey.
_BMP_WITH_PALETTE = r"BM\C{26}\x08\x00\x00{4}\C*"
# TensorFlow wants four channels of a WebP that has them, and is told of them
# here: asked to find out by itself, it overruns its memory on an animation.
_WEBP_WITH_ALPHA = (
    r"RIFF\C{4}WEBP"
    r"(VP8X\C{4}[\x10\x14\x18\x1c\x30\x34\x38\x3c]|VP8L\C{8}[\x10-\x1f])\C*"
)


def decode_rgb(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes one photo.

    JPEG's inverse cosine transform is set to the accurate one, which OpenCV
    uses; TensorFlow's own default differs by several levels. An EXIF rotation
    is ignored, as is an alpha channel; transparent pixels of a GIF are black.
    Of an animated GIF the first frame counts, an animated WebP is refused.

    Args:
        image_bytes: string, (). JPEG, PNG, GIF, BMP or WebP.

    Returns:
        uint8, (height, width, 3), RGB.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are none of these formats.
    """
    header = tf.strings.substr(image_bytes, 0, 64)
    pixels = tf.case(
        [
            (tf.io.is_jpeg(image_bytes), lambda: _decode_jpeg(image_bytes)),
            (
                tf.strings.regex_full_match(header, _BMP_WITH_PALETTE),
                lambda: _decode_palette(image_bytes),
            ),
            (
                tf.strings.regex_full_match(header, _WEBP_WITH_ALPHA),
                lambda: _decode_first_frame(image_bytes, channels=4)[..., :3],
            ),
        ],
        default=lambda: _decode_first_frame(image_bytes, channels=3),
    )
    return tf.ensure_shape(pixels, (None, None, 3))


def resize_pixels(pixels: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resizes bilinearly, without antialiasing, as OpenCV's default does.

    Args:
        pixels: uint8, (..., height, width, 3).
        height: Wanted height in pixels.
        width: Wanted width in pixels.

    Returns:
        uint8, (..., height, width, 3), rounded to whole levels as OpenCV does.
    """
    resized = tf.image.resize(pixels, (height, width), method="bilinear")
    return tf.cast(tf.round(resized), tf.uint8)


def read_pixels(image_bytes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Decodes one photo and resizes it.

    Args:
        image_bytes: string, ().
        height: Wanted height in pixels.
        width: Wanted width in pixels.

    Returns:
        uint8, (height, width, 3), RGB.
    """
    return resize_pixels(decode_rgb(image_bytes), height, width)


def read_pixels_or_error(
    image_bytes: tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and resizes a batch of photos, of which some may be broken.

    A decoding op that fails takes the whole batch with it. A `tf.data` map can
    drop what fails, and what it left out becomes a black picture. A photo of
    more than `MAX_PIXELS` is not decoded. The ops are TensorFlow's own and run
    in a SavedModel.

    Args:
        image_bytes: string, (batch,).
        height: Wanted height in pixels.
        width: Wanted width in pixels.

    Returns:
        Two tensors: uint8, (batch, height, width, 3), black where the photo is
        broken; and string, (batch,), empty where the photo is good.
    """
    count = tf.size(image_bytes, out_type=tf.int64)
    # Read last, so that there is a batch even if all photos fail.
    broken = (tf.zeros((height, width, 3), tf.uint8), "", count)
    decoded = (
        tf.data.Dataset.from_tensor_slices((image_bytes, tf.range(count)))
        .map(
            lambda row, place: (*_read_if_small(row, height, width), place),
            num_parallel_calls=4,
        )
        .ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors(broken))
        .batch(count + 1)
    )
    pixels, errors, places = without_tuning(decoded).get_single_element()
    good = tf.size(places, out_type=tf.int64) - 1
    slots = tf.tensor_scatter_nd_update(
        tf.fill((count + 1,), good), places[:, None], tf.range(good + 1)
    )[:count]
    undecodable = tf.strings.join(
        [
            UNDECODABLE + "; received ",
            tf.strings.as_string(tf.strings.length(image_bytes)),
            " bytes.",
        ]
    )
    errors = tf.where(slots < good, tf.gather(errors, slots), undecodable)
    pixels = tf.ensure_shape(tf.gather(pixels, slots), (None, height, width, 3))
    return pixels, errors


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


def _decode_jpeg(image_bytes: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(
        image_bytes, channels=3, dct_method="INTEGER_ACCURATE"
    )


def _decode_first_frame(image_bytes: tf.Tensor, *, channels: int) -> tf.Tensor:
    return tf.io.decode_image(
        image_bytes, channels=channels, expand_animations=False
    )


def _decode_palette(bmp_bytes: tf.Tensor) -> tf.Tensor:
    """Looks up the colours of a BMP with eight bits a pixel."""

    def number_at(place: int) -> tf.Tensor:
        number = tf.strings.substr(bmp_bytes, place, 4)
        return tf.io.decode_raw(number, tf.int32)[0]

    start, end = 14 + number_at(14), number_at(10)
    colours = tf.strings.substr(bmp_bytes, start, end - start)
    # Stored as blue, green, red and a spare byte.
    palette = tf.reshape(tf.io.decode_raw(colours, tf.uint8), (-1, 4))
    indices = tf.io.decode_bmp(bmp_bytes)[..., 0]
    return tf.gather(palette[:, 2::-1], tf.cast(indices, tf.int32))
