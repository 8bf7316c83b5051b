"""What an encoded image says of its size, before its pixels are decoded.

A few kilobytes can claim gigabytes of pixels. The sizes are read in TensorFlow
ops, so that a served model refuses such an image as the library does.
"""

import tensorflow as tf

# Room behind the end of a GIF: zeros, which stop every chain of blocks.
_TAIL = 16
_EXTENSION, _IMAGE = 0x21, 0x2C


def first_frame(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Tells how many pixels an image has, without decoding it.

    Args:
        image_bytes: string, (). JPEG, PNG, GIF, BMP or WebP.

    Returns:
        The image, string, (), and its number of pixels, int64, (). Of a GIF
        all behind the first frame is cut off, because TensorFlow would decode
        it. The number is 0 where the bytes are of none of these formats.

    Raises:
        tf.errors.InvalidArgumentError: The head is broken.
    """
    head = tf.strings.substr(image_bytes, 0, 16)

    def starts_with(magic: bytes, offset: int = 0) -> tf.Tensor:
        # Too short a text ends before `offset`, where nothing can be cut out.
        start = tf.minimum(offset, tf.strings.length(head))
        return tf.equal(tf.strings.substr(head, start, len(magic)), magic)

    frame, pixels = tf.case(
        [
            (starts_with(b"\xff\xd8\xff"), lambda: _read_jpeg(image_bytes)),
            (
                starts_with(b"\x89PNG\r\n\x1a\n"),
                lambda: _read_numbers(image_bytes, 16, little_endian=False),
            ),
            (starts_with(b"GIF8"), lambda: _cut_gif(image_bytes)),
            (starts_with(b"BM"), lambda: _read_numbers(image_bytes, 18)),
            (
                starts_with(b"WEBP", 8) & starts_with(b"RIFF"),
                lambda: _read_webp(image_bytes),
            ),
        ],
        default=lambda: (image_bytes, tf.constant(0, tf.int64)),
    )
    return tf.ensure_shape(frame, ()), tf.ensure_shape(pixels, ())


def _read_jpeg(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # In 64 bits: the product of two sides of 65,535 has 32.
    shape = tf.cast(tf.io.extract_jpeg_shape(image_bytes), tf.int64)
    return image_bytes, shape[0] * shape[1]


def _read_numbers(
    image_bytes: tf.Tensor, offset: int, *, little_endian: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Width and height stand next to each other, four bytes each."""
    sides = tf.io.decode_raw(
        tf.strings.substr(image_bytes, offset, 8),
        tf.int32,
        little_endian=little_endian,
    )
    # The height of a BMP that begins at the top is negative.
    sides = tf.abs(tf.cast(sides, tf.int64))
    return image_bytes, sides[0] * sides[1]


def _read_webp(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    codes = _codes(tf.strings.substr(image_bytes, 0, 30))
    kind = tf.strings.substr(image_bytes, 12, 4)

    def number(offset: int, size: int) -> tf.Tensor:
        shifts = [256**i for i in range(size)]
        return tf.reduce_sum(codes[offset : offset + size] * shifts)

    # A lossy side has 14 bits; both other kinds store each side less one.
    def lossy() -> tf.Tensor:
        return (number(26, 2) % 2**14) * (number(28, 2) % 2**14)

    def lossless() -> tf.Tensor:
        sides = number(21, 4)
        width, height = sides % 2**14, sides // 2**14 % 2**14
        return (width + 1) * (height + 1)

    def extended() -> tf.Tensor:
        return (number(24, 3) + 1) * (number(27, 3) + 1)

    pixels = tf.case(
        [
            (tf.equal(kind, b"VP8 "), lossy),
            (tf.equal(kind, b"VP8L"), lossless),
            (tf.equal(kind, b"VP8X"), extended),
        ],
        default=lambda: tf.constant(0, tf.int64),
    )
    return image_bytes, pixels


def _cut_gif(gif: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a GIF behind its first frame."""
    # Every block is a chain of parts that begin with their own length. A loop
    # over them takes a step for each; here all chains are followed at once, in
    # a number of steps that grows with the logarithm of their length.
    codes = _codes(tf.strings.join([gif, b"\0" * _TAIL]), tf.int32)
    size = tf.size(codes)
    last, offsets = size - 1, tf.range(size)
    ends = _follow(
        tf.where(codes > 0, tf.minimum(offsets + codes + 1, last), offsets)
    )
    # The end of the block at each offset, were it an extension.
    behind = tf.gather(ends, tf.minimum(offsets + 2, last)) + 1
    blocks = _follow(
        tf.where(tf.equal(codes, _EXTENSION), tf.minimum(behind, last), offsets)
    )
    image = blocks[13 + _table_size(codes[10])]
    sides = codes[image + 5 : image + 9]
    width, height = sides[0] + 256 * sides[1], sides[2] + 256 * sides[3]
    # Two bytes each: the product fits into 63 bits, not into 31.
    pixels = tf.cast(width, tf.int64) * tf.cast(height, tf.int64)
    pixels = tf.where(tf.equal(codes[image], _IMAGE), pixels, 0)
    data = image + 11 + _table_size(codes[image + 9])
    frame = tf.strings.substr(gif, 0, ends[data] + 1)
    return tf.strings.join([frame, b";"]), pixels


def _codes(text: tf.Tensor, dtype: tf.DType = tf.int64) -> tf.Tensor:
    return tf.cast(tf.io.decode_raw(text, tf.uint8), dtype)


def _table_size(flags: tf.Tensor) -> tf.Tensor:
    """Bytes of a GIF's table of colours, which these flags announce."""
    size = tf.bitwise.left_shift(6, flags % 8)
    return tf.where(flags >= 128, size, 0)


def _follow(following: tf.Tensor) -> tf.Tensor:
    """Where chains end: of each offset's next, int32, (size,); ends stay."""

    def double(offsets: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        further = tf.gather(offsets, offsets)
        return further, tf.reduce_any(tf.not_equal(further, offsets))

    found, _ = tf.while_loop(
        lambda _, moved: moved, double, (following, tf.constant(True))
    )
    return found
