"""What an encoded image says of itself, before its pixels are decoded.

A few kilobytes can claim gigabytes of pixels. The sizes are read in TensorFlow
ops, so that a served model refuses such an image as the library does.
"""

import tensorflow as tf

# Room behind the end. Zeros are no side of an image, and stop every chain of
# blocks of a GIF.
_TAIL = b"\0" * 32
_EXTENSION, _IMAGE = 0x21, 0x2C
# An EXIF block has a head of its own and, right behind it as cameras write
# it, the tags of the image: 12 bytes each, in either byte order.
_TAGS = r"\C\C(?:\C{12}){0,80}?"
_LITTLE = rf"II\*\x00\x08\x00{{3}}{_TAGS}\x12\x01\x03\x00\x01\x00{{3}}"
_BIG = rf"MM\x00\*\x00{{3}}\x08{_TAGS}\x01\x12\x00\x03\x00{{3}}\x01\x00"
_EXIF = (
    r"\C*?(?:Exif\x00\x00|eXIf|EXIF\C{4})"
    rf"(?:{_LITTLE}([\x01-\x08])\x00|{_BIG}([\x01-\x08]))"
)
_SEARCHED = 2**16  # bytes in which the block begins


def first_frame(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Tells how large an image is, without decoding it.

    Args:
        image_bytes: string, (). JPEG, PNG, GIF, BMP or WebP.

    Returns:
        The image, string, (), and its height and width as they are stored,
        int64, (2,). Of a GIF all behind the first frame is cut off, because
        TensorFlow would decode it. The sides are 0 where the bytes are of none
        of these formats.

    Raises:
        tf.errors.InvalidArgumentError: The head is broken.
    """
    head = _codes(tf.strings.substr(image_bytes, 0, 32), tf.int64)

    def starts_with(magic: bytes, offset: int = 0) -> tf.Tensor:
        found = head[offset : offset + len(magic)]
        return tf.reduce_all(tf.equal(found, list(magic)))

    def number(offset: int, size: int, *, step: int = 1) -> tf.Tensor:
        digits = head[offset : offset + size][::step]
        return tf.reduce_sum(digits * [256**i for i in range(size)])

    def jpeg_sides() -> list[tf.Tensor]:
        shape = tf.cast(tf.io.extract_jpeg_shape(image_bytes), tf.int64)
        return [shape[0], shape[1]]

    def png_sides() -> list[tf.Tensor]:
        return [number(20, 4, step=-1), number(16, 4, step=-1)]

    def bmp_sides() -> list[tf.Tensor]:
        # They have signs: the height is negative where the top comes first.
        sides = number(22, 4), number(18, 4)
        return [tf.minimum(each, 2**32 - each) for each in sides]

    # A lossy WebP's side has 14 bits; the others store each side less one.
    def lossy_sides() -> list[tf.Tensor]:
        return [number(28, 2) % 2**14, number(26, 2) % 2**14]

    def lossless_sides() -> list[tf.Tensor]:
        both = number(21, 4)
        return [both // 2**14 % 2**14 + 1, both % 2**14 + 1]

    def extended_sides() -> list[tf.Tensor]:
        return [number(27, 3) + 1, number(24, 3) + 1]

    def sides() -> tf.Tensor:
        is_riff = starts_with(b"RIFF")
        found = tf.case(
            [
                (starts_with(b"\xff\xd8\xff"), jpeg_sides),
                (starts_with(b"\x89PNG\r\n\x1a\n"), png_sides),
                (starts_with(b"BM"), bmp_sides),
                (is_riff & starts_with(b"WEBPVP8 ", 8), lossy_sides),
                (is_riff & starts_with(b"WEBPVP8L", 8), lossless_sides),
                (is_riff & starts_with(b"WEBPVP8X", 8), extended_sides),
            ],
            default=lambda: [tf.constant(0, tf.int64)] * 2,
        )
        # Four bytes can claim so much that the product has no 63 bits.
        return tf.minimum(tf.stack(found), 2**31)

    frame, found = tf.cond(
        starts_with(b"GIF8"),
        lambda: _cut_gif(image_bytes),
        lambda: (image_bytes, sides()),
    )
    return tf.ensure_shape(frame, ()), tf.ensure_shape(found, (2,))


def read_orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads how a JPEG, PNG or WebP, string, (), is turned.

    Returns:
        int32, (), 1 (upright) to 8 as EXIF counts; 1 where the file does not
        say, or not in a way that can be read.
    """
    # A WebP has its block at the end.
    is_webp = tf.equal(tf.strings.substr(image_bytes, 0, 4), b"RIFF")
    start = tf.where(is_webp, tf.strings.length(image_bytes) - _SEARCHED, 0)
    part = tf.strings.substr(image_bytes, tf.maximum(start, 0), _SEARCHED)
    # All up to the code is replaced by it. Without a match the part stays, and
    # no image begins with such a code.
    found = tf.strings.regex_replace(part, _EXIF, r"\1\2", False)
    code = _codes(tf.strings.substr(found, 0, 1), tf.int32)[0]
    return tf.where((code >= 1) & (code <= 8), code, 1)


def _cut_gif(gif: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a GIF behind its first frame."""
    # Every block is a chain of parts that begin with their own length. A loop
    # over them takes a step for each; here all chains are followed at once, in
    # a number of steps that grows with the logarithm of their length.
    codes = _codes(gif, tf.int32)
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
    found = tf.where(tf.equal(codes[image], _IMAGE), [height, width], 0)
    data = image + 11 + _table_size(codes[image + 9])
    frame = tf.strings.substr(gif, 0, ends[data] + 1)
    return tf.strings.join([frame, b";"]), tf.cast(found, tf.int64)


def _codes(text: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    text = tf.strings.join([text, _TAIL])
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
