"""The precision in which matrices are multiplied on a CPU."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16")
_OPTION = "auto_mixed_precision_onednn_bfloat16"
# The trial: a feed-forward network of the preset `small` on a batch.
_TOKENS, _WIDTH, _INNER = 1024, 256, 1024
_TRIES = 5
_WORTHWHILE = 0.9  # of the time that float32 takes


def has_bfloat16_units(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the processor multiplies bfloat16 numbers by itself.

    Args:
        cpu_info: Linux' list of the processor's abilities. Where there is
            none, the answer is no.
    """
    try:
        text = cpu_info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    words = set(text.split())
    return any(unit in words for unit in _BFLOAT16_UNITS)


def is_bfloat16_faster() -> bool:
    """Whether products in bfloat16 take less time here, casts included.

    Some processors, and virtual machines of such, name units that do not make
    it faster; a trial of less than a second tells.
    """
    trial = _build_trial()
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(_TRIES):
        for name, taken in seconds.items():
            with matmul_precision(name):
                trial()  # optimizes the graph anew
                start = time.perf_counter()
                trial()
                taken.append(time.perf_counter() - start)
    float32, bfloat16 = map(statistics.median, seconds.values())
    return bfloat16 < _WORTHWHILE * float32


def set_matmul_precision(name: str) -> str:
    """Sets the precision of products of matrices in graphs from now on.

    Weights, sums and all other steps stay float32; TensorFlow's graph optimizer
    puts the casts in. Graphs that ran before are optimized anew. On a
    processor without units for bfloat16 it would be several times slower.

    Args:
        name: 'float32', 'bfloat16', or 'auto' for bfloat16 where the processor
            has units for it and a trial shows that they are faster.

    Returns:
        The precision that was set.
    """
    if name == "auto":
        faster = has_bfloat16_units() and is_bfloat16_faster()
        name = "bfloat16" if faster else "float32"
    _set_option(name)
    return name


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Sets the precision for a while; see `set_matmul_precision`.

    Args:
        name: 'float32' or 'bfloat16'.
    """
    options = tf.config.optimizer.get_experimental_options()
    before = "bfloat16" if options.get(_OPTION) else "float32"
    _set_option(name)
    try:
        yield
    finally:
        _set_option(before)


def _set_option(name: str) -> None:
    tf.config.optimizer.set_experimental_options({_OPTION: name == "bfloat16"})


def _build_trial() -> Any:
    """A traced function that multiplies in the precision that is set."""
    expand = tf.Variable(tf.random.normal((_WIDTH, _INNER), stddev=0.05))
    contract = tf.Variable(tf.random.normal((_INNER, _WIDTH), stddev=0.03))

    @tf.function
    def multiply(states: Any) -> Any:
        for _ in range(4):
            states += tf.nn.gelu(states @ expand, approximate=True) @ contract
            states = tf.math.l2_normalize(states, axis=-1)
        return tf.reduce_sum(states)

    states = tf.random.normal((_TOKENS, _WIDTH))
    return lambda: float(multiply(states))
