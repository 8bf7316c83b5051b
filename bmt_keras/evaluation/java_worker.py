"""One of pycocoevalcap's Java scorers in a process of its own.

`java_scores` starts it, gives a request as JSON on the standard input and
reads the score from the last line of the standard output.
"""

import json
import os
import socket
import sys
import traceback
from typing import Any

_CONNECT_SECONDS = 30.0


def main() -> None:
    """Reads a request, computes the score of all photos and prints it."""
    request = json.load(sys.stdin)
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    try:
        score, _ = _make_scorer(request["scorer"]).compute_score(
            dict(enumerate(request["references"])),
            dict(enumerate(request["predictions"])),
        )
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        # A METEOR that failed holds its lock, for which its `__del__` would
        # wait for ever.
        os._exit(1)
    # A new line: the scorers print without one.
    print(f"\n{float(score)!r}", flush=True)


def _make_scorer(name: str) -> Any:
    if name == "meteor":
        from pycocoevalcap.meteor.meteor import Meteor

        return Meteor()
    from pycocoevalcap.spice.spice import Spice

    return Spice()


if __name__ == "__main__":
    main()
