"""The lengths that a user asks for, checked."""

from bmt_keras.decoding import DecodingOptions
from bmt_keras.errors import InputError

Length = int | tuple[int, int] | None


def check_lengths(
    length: Length, options: DecodingOptions, *, max_caption_tokens: int
) -> tuple[int, int]:
    """Turns an asked length into bounds.

    Args:
        length: Tokens of a caption, or the fewest and most, or None.
        options: Tell how many captions are wanted.
        max_caption_tokens: Most tokens of a caption.

    Returns:
        The fewest and most tokens.

    Raises:
        InputError: The length is out of range, or leaves too few lengths for
            captions that differ in nothing else.
    """
    bounds = (1, max_caption_tokens) if length is None else length
    shortest, longest = (bounds, bounds) if isinstance(bounds, int) else bounds
    if not 1 <= shortest <= longest <= max_caption_tokens:
        raise InputError(
            "`length` must be a number of tokens, or the fewest and most, from "
            f"1 to {max_caption_tokens}. Received: length={length}."
        )
    lengths = longest - shortest + 1
    if options.num_captions > lengths and not options.samples:
        raise InputError(
            "Without draws each photo gets one caption a length: "
            "`num_captions` must be at most the number of allowed lengths, or "
            "`temperature` positive. Received: num_captions="
            f"{options.num_captions}, temperature=0, {lengths} lengths."
        )
    return shortest, longest
