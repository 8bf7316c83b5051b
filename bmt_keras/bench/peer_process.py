"""Asks a process of its own for captions by peers."""

import json
import subprocess
from collections.abc import Sequence

TOKENS = 20  # of a caption


class PeerProcess:
    """A process that captions with peers.

    Args:
        command: Starts `peer_worker.answer` on its standard streams.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Starts the process."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def caption(self, peer: str, *, batch: int) -> list[int]:
        """Has captions written and waits for them.

        Args:
            peer: Name of the model.
            batch: Photos.

        Returns:
            The shape of the token ids.

        Raises:
            RuntimeError: The process has ended.
        """
        requests, answers = self._process.stdin, self._process.stdout
        request = {"peer": peer, "batch": batch, "tokens": TOKENS}
        if requests is not None and answers is not None:
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            if line := answers.readline():
                return list(json.loads(line)["shape"])
        raise RuntimeError(
            f"The process of {peer} ended; what it said stands above."
        )

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
