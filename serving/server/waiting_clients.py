"""The clients of REST that wait for an answer, and whether they still do."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .cancel_token import CancelToken


class WaitingClients:
    """Finds out which clients closed their connections while a run goes on.

    A client that only closes its sending half counts as gone, as in other
    HTTP servers: nothing tells the two apart. Methods may be called from any
    thread.

    Example:
        ```python
        clients = WaitingClients()
        with clients.watch(connection) as token:
            servable.run(feeds, fetches, cancel=token)
        clients.look()  # again and again, in another thread
        ```
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[socket.socket, CancelToken] = {}

    @contextmanager
    def watch(self, connection: socket.socket) -> Iterator[CancelToken]:
        """Yields a token for the run that the block makes.

        Args:
            connection: socket.socket, whose request has been read.
        """
        token = CancelToken()
        with self._lock:
            self._tokens[connection] = token
        try:
            yield token
        finally:
            with self._lock:
                self._tokens.pop(connection, None)

    def look(self) -> None:
        """Cancels the tokens of connections that were closed."""
        if not self._tokens:
            return
        with self._lock, selectors.DefaultSelector() as selector:
            for connection in self._tokens:
                selector.register(connection, selectors.EVENT_READ, connection)
            for key, _ in selector.select(0):
                # What came is the end, or a request that nobody will read.
                token = self._tokens.pop(key.data)
                if _has_ended(key.data):
                    token.cancel()


def _has_ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
