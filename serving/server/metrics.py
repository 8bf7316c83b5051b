"""Counts and latencies of calls, under TensorFlow Serving's names."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)

from .status import to_status

_COUNT = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"
# TensorFlow Serving's upper ends, in microseconds.
_BUCKETS = [10 * 1.8**power for power in range(33)]


class Metrics:
    """What a Prometheus server collects; any thread may call."""

    def __init__(self) -> None:
        # Not the process's own: two servers must not mix their counts.
        self._registry = CollectorRegistry()
        self._count = Counter(
            _COUNT,
            "Calls by model and status.",
            ["model_name", "status"],
            registry=self._registry,
        )
        self._latency = Histogram(
            _LATENCY,
            "Microseconds of the calls that succeeded.",
            ["model_name", "API", "entrypoint"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    @contextmanager
    def watch(
        self, model_name: str, api: str, entrypoint: str
    ) -> Iterator[None]:
        """Counts the block's call by its status; times it if it succeeds."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            status = to_status(error)
            self._count.labels(model_name, status.code.name).inc()
            raise status from None
        self._count.labels(model_name, "OK").inc()
        microseconds = (time.perf_counter() - start) * 1e6
        self._latency.labels(model_name, api, entrypoint).observe(microseconds)

    def render(self) -> bytes:
        """Returns the page that Prometheus reads."""
        page = generate_latest(self._registry)
        # The library ends a counter's name with _total.
        return page.replace(f"{_COUNT}_total".encode(), _COUNT.encode())
