"""Counts and latencies of calls, in TensorFlow Serving's names."""

import bisect
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .status import StatusError

_COUNT = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"
# Upper ends in microseconds; one bucket more has none.
_LIMITS = tuple(10 * 1.8**power for power in range(33))


class Metrics:
    """What a Prometheus server collects from a server of models.

    The names, labels and buckets are those of TensorFlow Serving's
    `request_count` and `request_latency`. All methods may be called from any
    thread.

    Example:
        ```python
        metrics = Metrics()
        with metrics.watch("bmt", "Predict", "GRPC"):
            response = predict(servable, request)
        page = metrics.render()
        ```
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._latencies: dict[str, _Histogram] = {}

    @contextmanager
    def watch(
        self, model_name: str, api: str, entrypoint: str
    ) -> Iterator[None]:
        """Counts the call that the block answers.

        It is counted by the code of the StatusError that the block raises,
        else as "OK", and then its time is added, too.

        Args:
            model_name: str. The name that the request gives.
            api: str, such as "Predict".
            entrypoint: str, "GRPC" or "REST".
        """
        start = time.perf_counter()
        try:
            yield
        except StatusError as error:
            self._count(model_name, error.code.name)
            raise
        self._count(model_name, "OK")
        seconds = time.perf_counter() - start
        labels = _write_labels(
            {"model_name": model_name, "API": api, "entrypoint": entrypoint}
        )
        with self._lock:
            self._latencies.setdefault(labels, _Histogram()).add(seconds)

    def render(self) -> str:
        """Returns the page that Prometheus reads."""
        with self._lock:
            lines = [f"# TYPE {_COUNT} counter"]
            lines += [f"{_COUNT}{{{k}}} {v}" for k, v in self._counts.items()]
            lines.append(f"# TYPE {_LATENCY} histogram")
            for labels, histogram in self._latencies.items():
                lines += histogram.write(_LATENCY, labels)
        return "\n".join(lines) + "\n"

    def _count(self, model_name: str, status: str) -> None:
        labels = _write_labels({"model_name": model_name, "status": status})
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + 1


class _Histogram:
    """Counts by bucket; microseconds."""

    def __init__(self) -> None:
        self._buckets = [0] * (len(_LIMITS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        microseconds = seconds * 1e6
        self._buckets[bisect.bisect_right(_LIMITS, microseconds)] += 1
        self._sum += microseconds

    def write(self, name: str, labels: str) -> list[str]:
        lines, total = [], 0
        limits = [f"{limit:g}" for limit in _LIMITS] + ["+Inf"]
        for limit, count in zip(limits, self._buckets, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{limit}"}} {total}')
        lines.append(f"{name}_sum{{{labels}}} {self._sum!r}")
        lines.append(f"{name}_count{{{labels}}} {total}")
        return lines


def _write_labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
