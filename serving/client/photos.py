"""Photos that a client is given: found, read, and kept to a size."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from pathlib import Path

from ..errors import ServingError
from .shrinking import shrink_photo

Photo = bytes | str | Path

PHOTO_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


@dataclass(frozen=True)
class Row:
    """A photo and what is asked of it, ready to be sent.

    Args:
        photo: What the caller gave.
        image_bytes: bytes. The encoded photo; empty where there is an error.
        extra: The signature's second input: a length, a text or None.
        error: str. Why the photo cannot be sent; empty where it can.
    """

    photo: Photo
    image_bytes: bytes
    extra: int | bytes | None
    error: str

    @property
    def size(self) -> int:
        """Bytes that the row adds to a request, at most."""
        extra = self.extra if isinstance(self.extra, bytes) else b""
        return len(self.image_bytes) + len(extra) + _FRAMING


# Tags and lengths of a row's fields in a request.
_FRAMING = 32


def find_photos(photos: Photo | Iterable[Photo]) -> Iterable[Photo]:
    """Lists the photos of a folder; what is no folder is taken as it is.

    Args:
        photos: A folder, whose photos are searched in its subfolders too, one
            photo, or photos.

    Returns:
        The photos; those of a folder in the order of their names.

    Raises:
        ServingError: The folder holds no photo.
    """
    if isinstance(photos, bytes):
        return [photos]
    if not isinstance(photos, str | Path):
        return photos
    folder = Path(photos)
    if not folder.is_dir():
        return [photos]
    found: list[Photo] = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()
    )
    if not found:
        raise ServingError(
            f"{folder}: expected photos ({', '.join(PHOTO_SUFFIXES)}), found "
            "none."
        )
    return found


def count_photos(photos: Iterable[Photo]) -> int | None:
    """Returns how many photos there are, where it is known beforehand."""
    return len(photos) if isinstance(photos, Sized) else None


def read_row(
    photo: Photo, extra: int | bytes | None, *, limit: int, shrink: bool
) -> Row:
    """Reads a photo; what is wrong with it becomes the row's error.

    Args:
        photo: Encoded photo as bytes, or the path of a photo file.
        extra: The signature's second input: a length, a text or None.
        limit: int. Bytes that the row may have.
        shrink: bool. Makes a photo over the limit smaller.
    """
    try:
        image_bytes = photo if isinstance(photo, bytes) else _read(Path(photo))
        spare = limit - Row(photo, b"", extra, "").size
        if len(image_bytes) > spare:
            if not shrink:
                raise ValueError(
                    f"A photo must have at most {spare} bytes to fit into a "
                    f"message. Received: {len(image_bytes)} bytes; raise "
                    "`max_message_mb` here and at the server, or let it be "
                    "shrunk."
                )
            image_bytes = shrink_photo(image_bytes, spare)
    except ValueError as error:
        return Row(photo, b"", extra, str(error))
    return Row(photo, image_bytes, extra, "")


def name_photo(photo: Photo) -> str:
    """Returns a photo's path, or its size where it came as bytes."""
    if isinstance(photo, bytes):
        return f"photo of {len(photo)} bytes"
    return str(photo)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            "A photo must be a file that can be read. Received: "
            f"{path}: {error.strerror}."
        ) from error
