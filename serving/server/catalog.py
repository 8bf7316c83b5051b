"""What a server serves: versions by model name, their states and labels."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec

from .servable import Servable
from .status import StatusError, invalid

Labels = Mapping[str, Mapping[str, int]]


@dataclass
class _Version:
    """A version's place in the catalog; it stays when the model is gone."""

    state: int = ModelVersionStatus.LOADING
    error: StatusError | None = None
    servable: Servable | None = None
    borrowers: int = 0


class Catalog:
    """The versions of every model, found by a request's model_spec.

    Who borrows a version keeps it alive: a version that is retired meanwhile
    answers no new request and is freed when its last borrower is done. All
    methods may be called from any thread.

    Attributes:
        labels: By model name, the version that each label names.
    """

    def __init__(self) -> None:
        self.labels: Labels = {}
        self._lock = threading.Lock()
        self._models: dict[str, dict[int, _Version]] = {}
        self._closed = False

    # === Requests ===

    @contextmanager
    def borrow(self, model_spec: ModelSpec) -> Iterator[Servable]:
        """Lends the version that a request asks for.

        Args:
            model_spec: Without a version or label the latest available one
                is meant.

        Yields:
            The version, which is not freed before the block ends.

        Raises:
            StatusError: If the name is empty, the label is unknown, or
                nothing of that name and version is available.
        """
        with self._lock:
            version, servable = self._find(model_spec)
            version.borrowers += 1
        try:
            yield servable
        finally:
            with self._lock:
                version.borrowers -= 1
                freed = self._take_if_unused(version)
            if freed is not None:
                freed.close()

    def list_statuses(self, model_spec: ModelSpec) -> list[ModelVersionStatus]:
        """Lists the state of a model's versions, the latest first.

        Args:
            model_spec: With a version, that one alone is listed.

        Returns:
            The states. Versions that were unloaded, or that failed to load,
            stay as END.

        Raises:
            StatusError: If nothing of that name or version is known.
        """
        with self._lock:
            # TensorFlow Serving's status knows no labels.
            wanted = (
                int(model_spec.version.value)
                if model_spec.HasField("version")
                else None
            )
            known = self._models.get(model_spec.name, {})
            if wanted is not None:
                known = {n: known[n] for n in (wanted,) if n in known}
            statuses = [
                _make_status(number, known[number])
                for number in sorted(known, reverse=True)
            ]
        if not statuses:
            missing = "any versions" if wanted is None else f"version {wanted}"
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find {missing} of model {model_spec.name}",
            )
        return statuses

    # === Changes ===

    def start_loading(self, model_name: str, version: int) -> None:
        """Makes a version known whose load begins."""
        with self._lock:
            self._models.setdefault(model_name, {})[version] = _Version()

    def add(self, model_name: str, servable: Servable) -> None:
        """Makes a loaded version available under a model's name.

        Once the catalog is closed, the version is freed instead.
        """
        version = _Version(ModelVersionStatus.AVAILABLE, servable=servable)
        with self._lock:
            closed = self._closed
            if not closed:
                known = self._models.setdefault(model_name, {})
                known[servable.version] = version
        if closed:
            servable.close()

    def fail(self, model_name: str, version: int, error: StatusError) -> None:
        """Notes that a version could not be loaded, and why."""
        with self._lock:
            self._models.setdefault(model_name, {})[version] = _Version(
                ModelVersionStatus.END, error
            )

    def retire(self, model_name: str, version: int) -> None:
        """Ends a version: no new requests, freed after its last borrower."""
        with self._lock:
            retired = self._models.get(model_name, {}).get(version)
            if retired is None:
                return
            retired.state = ModelVersionStatus.UNLOADING
            freed = self._take_if_unused(retired)
        if freed is not None:
            freed.close()

    def available(self, model_name: str) -> list[int]:
        """Returns a model's versions that answer requests, in order."""
        with self._lock:
            return sorted(_available(self._models.get(model_name, {})))

    def model_names(self) -> list[str]:
        """Returns the names of models with a version that answers requests."""
        with self._lock:
            return sorted(
                name
                for name, known in self._models.items()
                if _available(known)
            )

    def close(self) -> None:
        """Frees every version at once; runs still going on are cancelled."""
        with self._lock:
            versions = [
                v for known in self._models.values() for v in known.values()
            ]
            servables = [v.servable for v in versions if v.servable is not None]
            self._models.clear()
            self._closed = True
        for servable in servables:
            servable.close()

    # === Under the lock ===

    def _wanted_version(self, model_spec: ModelSpec) -> int | None:
        if model_spec.HasField("version"):
            return int(model_spec.version.value)
        if not model_spec.HasField("version_label"):
            return None
        label = model_spec.version_label
        labels = self.labels.get(model_spec.name, {})
        if label not in labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        return labels[label]

    def _find(self, model_spec: ModelSpec) -> tuple[_Version, Servable]:
        name = model_spec.name
        if not name:
            raise invalid("ModelSpec has no name specified.")
        wanted = self._wanted_version(model_spec)
        available = _available(self._models.get(name, {}))
        number = max(available, default=-1) if wanted is None else wanted
        version = available.get(number)
        if version is None or version.servable is None:
            asked = (
                f"Latest({name})"
                if wanted is None
                else f"Specific({name}, {wanted})"
            )
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: {asked}",
            )
        return version, version.servable

    @staticmethod
    def _take_if_unused(version: _Version) -> Servable | None:
        if version.state != ModelVersionStatus.UNLOADING or version.borrowers:
            return None
        servable, version.servable = version.servable, None
        version.state = ModelVersionStatus.END
        return servable


def _available(known: Mapping[int, _Version]) -> dict[int, _Version]:
    return {
        number: version
        for number, version in known.items()
        if version.state == ModelVersionStatus.AVAILABLE
    }


def _make_status(number: int, version: _Version) -> ModelVersionStatus:
    status = ModelVersionStatus(version=number, state=version.state)
    # Present though empty: no error.
    status.status.SetInParent()
    if version.error is not None:
        status.status.error_code = version.error.code.value[0]
        status.status.error_message = version.error.message
    return status
