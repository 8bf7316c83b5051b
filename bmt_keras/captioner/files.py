"""Many image files: found, read ahead of the model, and named if broken."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bmt_keras.captioner.captioner import Captioner
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.data.images import decode_images, report_unreadable
from bmt_keras.errors import InputError

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Lists image files, those in folders and their subfolders among them.

    Args:
        paths: Files, taken as they are, and folders.

    Returns:
        The files; those of a folder in the order of their names.

    Raises:
        InputError: A folder holds no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        # A file that is missing is told when it is read.
        if not path.is_dir():
            found.append(path)
            continue
        images = sorted(
            each
            for each in path.rglob("*")
            if each.suffix.lower() in _SUFFIXES and each.is_file()
        )
        if not images:
            raise InputError(
                f"{path}: expected images ({', '.join(_SUFFIXES)}), found none."
            )
        found += images
    return found


def read_ahead(
    captioner: Captioner, paths: Sequence[Path], *, batch_size: int = 16
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Reads image files batch by batch, while the model works.

    Yields:
        Pixels of a batch's good images, uint8, (good images, height, width,
        3); and the errors of all its images, empty where one is good.
    """
    height, width, _ = captioner.graph.pixels_shape
    for pixels, errors in decode_images(
        paths, height=height, width=width, batch_size=batch_size
    ):
        yield pixels[[not error for error in errors]], errors


def read_good_images(
    captioner: Captioner,
    images: Sequence[CaptionedImage],
    *,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[CaptionedImage], np.ndarray]:
    """Reads images into features, and leaves out those that are broken.

    Args:
        captioner: The captioner.
        images: The images.
        skip_bad: Only log which images are broken.
        on_progress: Called with images done and images in all.

    Returns:
        The good images and their features, (images, ...), as
        `Captioner.read_features` gives them.

    Raises:
        InputError: No image can be read, or some cannot and are not to be
            skipped.
    """
    features: list[np.ndarray] = []
    errors: list[str] = []
    for pixels, found in read_ahead(captioner, [each.path for each in images]):
        # A batch may be broken as a whole.
        if len(pixels):
            features.append(captioner.read_features(pixels))
        errors += found
        if on_progress is not None:
            on_progress(len(errors), len(images))
    pairs = list(zip(images, errors, strict=True))
    bad = [f"{image.path} ({error})" for image, error in pairs if error]
    report_unreadable(bad, len(images), skip_bad=skip_bad)
    if not features:
        raise InputError(
            f"Expected images that can be read, found none among {len(images)}."
        )
    good = [image for image, error in pairs if not error]
    return good, np.concatenate(features)
