"""One way from an encoded image to pixels, for training and for serving.

The TensorFlow ops below can be exported. They read an image as people see it:
turned as its EXIF block says, on white where it is transparent, and without
aliasing. `like_opencv` gives, within one level of 255, what
`cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)` followed by
`cv2.cvtColor(…, cv2.COLOR_BGR2RGB)` and `cv2.resize(…)` gives: unturned, with
the colours that transparent pixels hide, and with aliasing.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from bmt_keras.data.image_headers import first_frame, read_orientation
from bmt_keras.data.untuned import without_tuning
from bmt_keras.image_files import read_image

# Raised when the pixels of an image change, so that old caches are refused.
PREPROCESSING_VERSION = 2

UNDECODABLE = "not a decodable image"
UNKNOWN = "JPEG, PNG, GIF, BMP or WebP expected"
TRUNCATED = "truncated: the file ends before its image does"
TOO_LARGE = "too large an image"
MAX_PIXELS = 2**26  # 8192 x 8192: 192 MiB when decoded
# Of a JPEG that is shrunk in decoding. Of a progressive one libjpeg keeps all
# coefficients, 3 to 6 bytes per pixel, however small it becomes.
MAX_JPEG_PIXELS = 3 * MAX_PIXELS

_SHORTEST = 512  # side of a JPEG that is shrunk: ordinary photos never are
# Batches read at once, each of four images at a time.
_READERS = max(2, (os.cpu_count() or 1) // 4)

# TensorFlow takes the palette's indices of such a BMP for levels of grey.
_BMP_WITH_PALETTE = r"BM\C{26}\x08\x00\x00{4}\C*"
# TensorFlow must decode a WebP that has four channels as such. They are found
# here: where it finds them by itself, it overruns its memory on an animation.
# A PNG's is wrong where it has neither eight bits nor transparent colours.
_WITH_ALPHA = (
    r"(?:\CPNG\C{20}(?:[\x08\x10]|\C*tRNS)|RIFF\C{4}WEBP(?:VP8L\C{8}[\x10-\x1f]|"
    r"VP8X\C{4}[\x10\x14\x18\x1c\x30\x34\x38\x3c]))\C*"
)
# Steps through rows and columns that mirror them, for the orientations 1 to 4;
# 5 to 8 do the same after rows and columns were exchanged.
_STEPS = [(1, 1), (1, -1), (-1, -1), (-1, 1)]
# What is wrong with an image that cannot be decoded; the last match counts. A
# small JPEG within a JPEG has an end, too, but then the scans of the large one.
_FAULTS = (
    (r"(\xff\xd8\xff|\x89PNG|GIF8).*", TRUNCATED),
    (r"\xff\xd8.*\xff\xd9([^\xff]|\xff+[^\xff\xda])*\xff*", UNKNOWN),
    (r"\x89PNG.*IEND.*|GIF8.*;", UNKNOWN),
    (r"RIFF.{4}WEBPVP8X.*ANMF.*", "an animated WebP; one picture expected"),
    (r"BM.{26}[\x01\x04]\x00.*", "a BMP of 1 or 4 bits; 8 to 32 expected"),
)


def decode_rgb(
    image_bytes: tf.Tensor, halvings: tf.Tensor, *, like_opencv: bool
) -> tf.Tensor:
    """Decodes one image as it lies in its file.

    Transparent pixels of a PNG or WebP become white, or what they hide with
    `like_opencv`; of a GIF they are black, a BMP's are opaque. Of an animated
    GIF the first frame counts, an animated WebP is refused.

    Args:
        image_bytes: string, (). JPEG, PNG, GIF, BMP or WebP.
        halvings: int32, (), 0 to 3. How often a JPEG's sides are halved.
        like_opencv: Ignore transparency.

    Returns:
        uint8, (height, width, 3), RGB.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are none of these formats.
    """
    header = tf.strings.substr(image_bytes, 0, 2**16)
    has_palette = tf.strings.regex_full_match(header, _BMP_WITH_PALETTE)
    has_alpha = tf.strings.regex_full_match(header, _WITH_ALPHA)

    def decode(channels: int) -> tf.Tensor:
        return tf.io.decode_image(
            image_bytes, channels=channels, expand_animations=False
        )

    def decode_jpeg() -> tf.Tensor:
        # OpenCV's transform; TensorFlow's default differs by several levels.
        shrink = partial(
            tf.io.decode_jpeg, channels=3, dct_method="INTEGER_ACCURATE"
        )
        sizes = [partial(shrink, image_bytes, ratio=2**n) for n in range(4)]
        return tf.switch_case(halvings, sizes)

    pixels = tf.case(
        [
            (tf.io.is_jpeg(image_bytes), decode_jpeg),
            (has_palette, lambda: _decode_palette(image_bytes)),
            (has_alpha, lambda: _drop_alpha(decode(4), like_opencv)),
        ],
        default=lambda: decode(3),
    )
    return tf.ensure_shape(pixels, (None, None, 3))


@dataclass(frozen=True)
class PixelReader:
    """Reads images as pixels of one size: uint8, (…, height, width, 3), RGB.

    Its ops are TensorFlow's own and run in a SavedModel.
    """

    height: int
    width: int
    like_opencv: bool = False  # or as people see an image

    def resize(
        self, pixels: tf.Tensor, size: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Resizes pixels, uint8, (…, any height, any width, 3)."""
        if size is None:
            size = self.height, self.width
        resized = tf.image.resize(
            pixels, size, method="bilinear", antialias=not self.like_opencv
        )
        # OpenCV rounds to whole levels; a cast alone would cut off.
        return tf.cast(tf.round(resized), tf.uint8)

    def read(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes and resizes one image, string, (), if it is not too large.

        Returns:
            uint8, (height, width, 3), and an error, string, (), empty where
            the image is decoded.

        Raises:
            tf.errors.InvalidArgumentError: It cannot be decoded.
        """
        black = tf.zeros((self.height, self.width, 3), tf.uint8)
        frame, sides = first_frame(image_bytes)
        count, halvings = tf.reduce_prod(sides), self._halvings(frame, sides)
        # At half its sides a JPEG has less than `MAX_PIXELS` in any case.
        limit = tf.where(halvings > 0, MAX_JPEG_PIXELS, MAX_PIXELS)
        # An unknown format fails here: TensorFlow's decoder may know it.
        with tf.control_dependencies([tf.debugging.assert_positive(count)]):
            is_small = count <= tf.cast(limit, tf.int64)

        def decode() -> tuple[tf.Tensor, tf.Tensor]:
            orientation = tf.constant(1)
            if not self.like_opencv:
                orientation = read_orientation(image_bytes)
            pixels = decode_rgb(frame, halvings, like_opencv=self.like_opencv)
            # The small image is turned, not the large one.
            size = self.height, self.width
            size = tf.where(orientation > 4, size[::-1], size)
            pixels = _turn_upright(self.resize(pixels, size), orientation)
            return tf.ensure_shape(pixels, black.shape), tf.constant("")

        def refuse() -> tuple[tf.Tensor, tf.Tensor]:
            message = TOO_LARGE + "; received {} pixels, expected at most {}."
            return black, tf.strings.format(message, (count, limit))

        return tf.cond(is_small, decode, refuse)

    def read_batch(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads images, string, (batch,), of which some may be broken.

        Returns:
            Two tensors: uint8, (batch, height, width, 3), black where the image
            is broken; and string, (batch,), empty where the image is good.
        """
        # A decoding op that fails takes the whole batch with it. A `tf.data`
        # map can drop what fails, and what it left out becomes a black picture.
        count = tf.size(image_bytes, out_type=tf.int64)
        # Read last, so that there is a batch even if all images fail.
        black = tf.zeros((self.height, self.width, 3), tf.uint8)
        decoded = (
            tf.data.Dataset.from_tensor_slices((image_bytes, tf.range(count)))
            .map(
                lambda row, index: (*self.read(row), index),
                num_parallel_calls=4,
            )
            .ignore_errors()
            .concatenate(tf.data.Dataset.from_tensors((black, "", count)))
            .batch(count + 1)
        )
        pixels, errors, indices = without_tuning(decoded).get_single_element()
        good = tf.size(indices, out_type=tf.int64) - 1
        slots = tf.tensor_scatter_nd_update(
            tf.fill((count + 1,), good), indices[:, None], tf.range(good + 1)
        )[:count]
        failed = tf.where(tf.equal(slots, good))
        faults = _describe_faults(tf.gather_nd(image_bytes, failed))
        errors = tf.tensor_scatter_nd_update(
            tf.gather(errors, slots), failed, faults
        )
        pixels = tf.gather(pixels, slots)
        return tf.ensure_shape(pixels, (None, *black.shape)), errors

    def _halvings(self, image_bytes: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
        # A JPEG stays twice as large as wanted, to look as any other format.
        least = max(2 * self.height, 2 * self.width, _SHORTEST)
        times = tf.reduce_min(sides) // least
        halvings = tf.reduce_sum(tf.cast(times >= [2, 4, 8], tf.int32))
        is_shrunk = tf.io.is_jpeg(image_bytes) & (not self.like_opencv)
        return tf.where(is_shrunk, halvings, 0)


def decode_images(
    paths: Sequence[Path], reader: PixelReader, *, batch_size: int = 16
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Reads image files batch by batch, ahead of the consumer.

    Yields:
        A batch's pixels, uint8, (batch, height, width, 3), and its errors,
        empty where an image is good.
    """

    def read_files(indices: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = [read_image(paths[i]) for i in indices]
        columns = [x for x, _ in rows], [x.encode() for _, x in rows]
        # Of objects: a dtype of bytes would lose zeros at a file's end.
        return tuple(np.array(column, dtype=object) for column in columns)

    def read(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        files, faults = tf.numpy_function(
            read_files, [indices], (tf.string, tf.string)
        )
        pixels, errors = reader.read_batch(tf.ensure_shape(files, (None,)))
        return pixels, tf.where(tf.equal(faults, ""), errors, faults)

    dataset = (
        tf.data.Dataset.range(len(paths))
        .batch(batch_size)
        .map(read, num_parallel_calls=_READERS)
        .prefetch(_READERS)
    )
    rows = without_tuning(dataset).as_numpy_iterator()
    for pixels, errors in rows:
        yield pixels, [error.decode() for error in errors]


def _describe_faults(image_bytes: tf.Tensor) -> tf.Tensor:
    """Says what is wrong with images, string, (images,), that failed."""
    # Patterns are of characters: each byte becomes the one of its number.
    text = tf.strings.unicode_transcode(image_bytes, "ISO-8859-1", "UTF-8")
    fault = tf.fill(tf.shape(text), UNKNOWN)
    for pattern, words in _FAULTS:
        is_such = tf.strings.regex_full_match(text, "(?s)" + pattern)
        fault = tf.where(is_such, words, fault)
    size = tf.strings.as_string(tf.strings.length(image_bytes))
    return tf.strings.join(
        [UNDECODABLE, " (", fault, "); received ", size, " bytes."]
    )


def _drop_alpha(pixels: tf.Tensor, like_opencv: bool) -> tf.Tensor:
    """Lays pixels, uint8, (height, width, 4), on white: (height, width, 3)."""
    colours, alpha = pixels[..., :3], pixels[..., 3:]

    def blend() -> tf.Tensor:
        wide, share = tf.cast(colours, tf.uint16), tf.cast(alpha, tf.uint16)
        mixed = wide * share + 255 * (255 - share) + 127  # below 2**16
        return tf.cast(mixed // 255, tf.uint8)

    is_seen = tf.reduce_all(tf.equal(alpha, 255)) | like_opencv
    return tf.cond(is_seen, lambda: colours, blend)


def _turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    axes = tf.where(orientation > 4, (1, 0, 2), (0, 1, 2))
    steps = tf.gather(_STEPS, (orientation - 1) % 4)
    return tf.transpose(pixels, axes)[:: steps[0], :: steps[1]]


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
