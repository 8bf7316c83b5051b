"""What tells a run that nobody waits for it any more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CancelToken:
    """Ends a run from another thread; before, in or after the run.

    Attributes:
        cancelled: bool.

    Example:
        ```python
        token = CancelToken()
        context.add_callback(token.cancel)
        servable.run(feeds, fetches, cancel=token)
        ```
    """

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Ends the run, now or as soon as it begins."""
        with self._lock:
            self.cancelled = True
            if self._end is not None:
                self._end()

    @contextmanager
    def watch(self, end: Callable[[], None]) -> Iterator[None]:
        """Calls `end` if the token is cancelled before the block is over."""
        with self._lock:
            self._end = end
            if self.cancelled:
                end()
        try:
            yield
        finally:
            with self._lock:
                self._end = None
