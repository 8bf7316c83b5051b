"""The precision in which matrices are multiplied on a CPU."""

from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16")


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


def set_matmul_precision(name: str) -> str:
    """Sets the precision of products of matrices for graphs yet to be traced.

    Weights, sums and all other steps stay float32; TensorFlow's graph optimizer
    puts the casts in. On a processor without units for bfloat16 that would be
    several times slower.

    Args:
        name: 'float32', 'bfloat16', or 'auto' for bfloat16 where the processor
            has units for it.

    Returns:
        The precision that was set.
    """
    import tensorflow as tf

    if name == "auto":
        name = "bfloat16" if has_bfloat16_units() else "float32"
    tf.config.optimizer.set_experimental_options(
        {"auto_mixed_precision_onednn_bfloat16": name == "bfloat16"}
    )
    return name
