"""The machine and the versions that figures were measured with."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bmt_keras

_CPU_INFO = Path("/proc/cpuinfo")
_PACKAGES = ("tensorflow", "keras", "keras-nlp", "numpy")


def describe_machine() -> dict[str, Any]:
    """Tells versions, processor, cores, accelerators, load and date."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "bmt_keras": bmt_keras.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerators": _accelerators(),
        "load_average": list(os.getloadavg()),
    }


def _accelerators() -> list[str]:
    """Names of the GPUs that TensorFlow sees."""
    import tensorflow as tf

    return [
        tf.config.experimental.get_device_details(each).get(
            "device_name", each.name
        )
        for each in tf.config.list_physical_devices("GPU")
    ]


def _processor() -> str:
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor()
