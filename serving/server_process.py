"""A server in a process of its own, so that load does not slow it down."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import ServingError
from .server import EmbeddedServer
from .server.version_folders import VersionFolder, find_version_folders


@contextmanager
def serve_in_own_process(
    folder: VersionFolder,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Serves a version while the block runs.

    Args:
        folder: VersionFolder.

    Yields:
        The server's address, and a function that publishes the version anew
        under the next number.

    Raises:
        ServingError: If the server does not come up.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)

        def add_version() -> None:
            number = len(find_version_folders(base)) + 1
            (base / str(number)).symlink_to(folder.path.absolute())

        add_version()
        process = spawn.Process(target=_run_server, args=(base, theirs))
        process.start()
        # Theirs alone: a server that fails then ends the wait for its port.
        theirs.close()
        try:
            yield f"127.0.0.1:{_receive_port(ours)}", add_version
        finally:
            ours.close()
            process.join()


def _receive_port(pipe: Any) -> int:
    try:
        return int(pipe.recv())
    except EOFError as error:
        raise ServingError(
            "A server needs a port of its own and a model that loads. It ended "
            "before it was up; its error stands above."
        ) from error


def _run_server(base: Path, pipe: Any) -> None:
    with EmbeddedServer(base, port=0) as server:
        pipe.send(server.port)
        try:
            pipe.recv()
        except EOFError:
            return
