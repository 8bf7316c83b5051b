"""Files and folders that appear whole or not at all.

A reader, or a run that is broken off, never meets half a file: the content is
written beside its place under a hidden name and renamed at the end. Only a
killed process leaves the hidden name behind.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal


@contextmanager
def write_atomically(
    path: str | Path, mode: Literal["w", "wb"] = "w"
) -> Iterator[IO[Any]]:
    """Opens a file that takes the place of `path` when the block ends well.

    Missing parent folders are made.

    Args:
        path: The file to write or replace.
        mode: `"w"` for text in UTF-8, `"wb"` for bytes.

    Yields:
        The open file. Its name is hidden, in the folder of `path` and with
        the ending of `path`.

    Example:
        >>> with write_atomically("metrics.json") as file:
        ...     json.dump(metrics, file)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = _hidden_sibling(path)
    # Names of files may hold bytes that are no UTF-8: JSON reads such escapes.
    text = ("utf-8", "backslashreplace") if mode == "w" else (None, None)
    try:
        # Not `tempfile`: its files are readable by their owner alone.
        with hidden.open(mode.replace("w", "x"), -1, *text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            error.filename = str(path)  # which a write does not name
        hidden.unlink(missing_ok=True)
        raise


@contextmanager
def write_folder_atomically(
    path: str | Path, *, replace: bool = False
) -> Iterator[Path]:
    """Makes a folder that is renamed to `path` when the block ends well.

    Missing parent folders are made.

    Args:
        path: The folder to make.
        replace: Whether an earlier folder at `path` gives way, with all that
            it holds; else nothing may be there yet.

    Yields:
        The folder to write into: empty, hidden and beside `path`.

    Raises:
        FileExistsError: If something is at `path`, before the block or after,
            that may not be replaced. Files and links never are.

    Example:
        >>> with write_folder_atomically("exported/1") as folder:
        ...     tf.saved_model.save(module, str(folder))
    """
    path = Path(path)
    _check_free(path, replace)
    hidden = _hidden_sibling(path)
    hidden.mkdir(parents=True)
    try:
        yield hidden
        # A rename would silently take the place of an empty folder.
        _check_free(path, replace)
        _take_place(hidden, path)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def _hidden_sibling(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}.{path.name}")


def _check_free(path: Path, replace: bool) -> None:
    may_go = replace and path.is_dir() and not path.is_symlink()
    if may_go or not os.path.lexists(path):
        return
    rule = "Only a folder" if replace else "Nothing"
    raise FileExistsError(
        f"{rule} may be at `path` yet. Received: path={str(path)!r}, which "
        "exists. Remove it or give another path."
    )


def _take_place(hidden: Path, path: Path) -> None:
    if not path.exists():
        hidden.rename(path)
        return
    # No system call swaps folders everywhere: two renames, undone on a failure.
    earlier = path.rename(_hidden_sibling(path))
    try:
        hidden.rename(path)
    except BaseException:
        earlier.rename(path)
        raise
    shutil.rmtree(earlier, ignore_errors=True)
