"""METEOR and SPICE, where Java is there to compute them.

Both are Java programs that `pycocoevalcap` starts. They run in a process of
their own, because they may wait for ever: METEOR's for a line that never comes,
SPICE's for its models, which it downloads at its first use. A score that cannot
be computed in time is left out, and the log says why.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from bmt_keras.evaluation.scores import split_sentences

_LOGGER = logging.getLogger(__name__)
_TIMEOUT = 1800.0  # seconds that each of the two may take

# The scorers print without a new line. A METEOR that failed holds its lock,
# for which its `__del__` would wait for ever: hence os._exit.
_WORKER = """
import importlib, json, os, socket, sys, traceback
socket.setdefaulttimeout(30)
name, *sentences = json.load(sys.stdin)
try:
    path = f"pycocoevalcap.{name.lower()}.{name.lower()}"
    scorer = getattr(importlib.import_module(path), name)()
    score, _ = scorer.compute_score(*(dict(enumerate(s)) for s in sentences))
    print(f"\\n{float(score)!r}", flush=True)
    os._exit(0)
except Exception:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
"""


def score_with_java(
    predictions: Mapping[int, str], references: Mapping[int, Sequence[str]]
) -> dict[str, float]:
    """Scores captions by METEOR and SPICE if that is possible here.

    Takes and raises what `score_captions` does.

    Returns:
        `meteor` and `spice`, in [0, 1], without those that cannot be computed.

    Reference:
        Denkowski and Lavie 2014 (METEOR 1.5); Anderson et al. 2016,
        https://arxiv.org/abs/1607.08822 (SPICE).
    """
    sentences = split_sentences(predictions, references)
    if shutil.which("java") is None:
        _LOGGER.warning(
            "METEOR and SPICE are left out: they need Java, and no `java` is "
            "on the PATH."
        )
        return {}
    scores = {}
    for name in ("Meteor", "Spice"):
        request = json.dumps([name, *(list(s.values()) for s in sentences)])
        answer = _ask(request)
        if isinstance(answer, float):
            scores[name.lower()] = answer
        else:
            _LOGGER.warning("%s is left out: %s", name.upper(), answer)
    return scores


def _ask(request: str) -> float | str:
    """A score, or why there is none."""
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # Java reads and writes text and numbers by the locale.
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(request, _TIMEOUT)
        except subprocess.TimeoutExpired:
            return f"it took over {_TIMEOUT:g} seconds."
        finally:
            # The worker's own children, Java above all, may outlive it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    *_, last = ["it said nothing.", *output.strip().splitlines()]
    return f"it failed: {last}" if process.returncode else float(last)
