"""METEOR and SPICE, where Java is there to compute them.

Both are Java programs that `pycocoevalcap` starts. They run in a process of
their own, for they may wait for ever: METEOR's for a line that never comes,
SPICE's for its models, which it downloads at its first use (400 MB from
Stanford, over HTTP and into the folder of the package). A score that cannot be
computed, or not in time, is left out and the log says why.
"""

import contextlib
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from bmt_keras.evaluation.caption_scores import split_sentences

SCORERS = ("meteor", "spice")
_WORKER = "bmt_keras.evaluation.java_worker"

_LOGGER = logging.getLogger(__name__)


def score_with_java(
    predictions: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    *,
    timeout: float = 1800.0,
) -> dict[str, float]:
    """Scores captions by METEOR and SPICE if that is possible here.

    Args:
        predictions: One caption a photo, by photo id.
        references: At least one caption by people a photo, for the same ids.
        timeout: Seconds that each of the two may take.

    Returns:
        `meteor` and `spice`, in [0, 1]; without the score that could not be
        computed, and empty without Java.

    Raises:
        InputError: As `score_captions`.
        TypeError: As `score_captions`.

    Reference:
        Denkowski and Lavie 2014 (METEOR 1.5); Anderson et al. 2016,
        https://arxiv.org/abs/1607.08822 (SPICE).
    """
    expected, received = split_sentences(predictions, references)
    if shutil.which("java") is None:
        _LOGGER.warning(
            "METEOR and SPICE are left out: they need Java, and no `java` is "
            "on the PATH."
        )
        return {}
    scores = {}
    for name in SCORERS:
        request = json.dumps(
            {
                "scorer": name,
                "references": list(expected.values()),
                "predictions": list(received.values()),
            }
        )
        try:
            scores[name] = _run_worker(request, timeout)
        except (RuntimeError, OSError) as err:
            _LOGGER.warning("%s is left out: %s", name.upper(), err)
    return scores


def _run_worker(request: str, timeout: float) -> float:
    with subprocess.Popen(
        [sys.executable, "-m", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        # Java reads and writes text and numbers by the locale.
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        start_new_session=True,
    ) as process:
        try:
            answer, log = process.communicate(request, timeout)
        except subprocess.TimeoutExpired as err:
            raise RuntimeError(f"it took over {timeout:g} seconds.") from err
        finally:
            _kill_group(process.pid)
    if process.returncode != 0:
        raise RuntimeError(f"it failed: {_last_line(log)}")
    return _read_score(_last_line(answer))


def _kill_group(group: int) -> None:
    # The worker's own children, Java above all, may outlive it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _read_score(text: str) -> float:
    try:
        score = float(text)
    except ValueError as err:
        raise RuntimeError(f"it gave no number but {text!r}.") from err
    if not math.isfinite(score):
        raise RuntimeError(f"it gave no finite number but {text}.")
    return score


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing."
