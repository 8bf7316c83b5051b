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
class Version:
    """A version's place in the catalog; it stays when the model is gone."""

    state: int = ModelVersionStatus.LOADING
    servable: Servable | None = None
    error: StatusError | None = None
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
        self._models: dict[str, dict[int, Version]] = {}
        self._closed = False

    # === Requests ===

    @contextmanager
    def borrow(self, model_spec: ModelSpec) -> Iterator[Servable]:
        """Lends the version that a request asks for; by default the latest."""
        with self._lock:
            version, servable = self._find(model_spec)
            version.borrowers += 1
        try:
            yield servable
        finally:
            with self._lock:
                version.borrowers -= 1
            self._free_if_unused(version)

    def list_statuses(self, model_spec: ModelSpec) -> list[ModelVersionStatus]:
        """Lists the states of a model's versions, the latest first.

        Versions that were unloaded, or that failed to load, stay as END.
        """
        missing = "any versions"
        with self._lock:
            known = self._models.get(model_spec.name, {})
            # TensorFlow Serving's status knows no labels.
            if model_spec.HasField("version"):
                wanted = int(model_spec.version.value)
                missing = f"version {wanted}"
                known = {n: v for n, v in known.items() if n == wanted}
            statuses = [
                _make_status(number, known[number])
                for number in sorted(known, reverse=True)
            ]
        if not statuses:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find {missing} of model {model_spec.name}",
            )
        return statuses

    def available(self) -> dict[str, list[int]]:
        """Returns the versions that answer requests, in order, by model."""
        with self._lock:
            return {
                name: sorted(available)
                for name, known in sorted(self._models.items())
                if (available := _available(known))
            }

    # === Changes ===

    def put(self, model_name: str, number: int, version: Version) -> None:
        """Sets what is known of a version.

        Once the catalog is closed, a loaded version is freed instead.
        """
        with self._lock:
            # A load may end after the server has.
            if not self._closed:
                self._models.setdefault(model_name, {})[number] = version
                return
        if version.servable is not None:
            version.servable.close()

    def retire(self, model_name: str, number: int) -> None:
        """Ends a version: no new requests, freed after its last borrower."""
        with self._lock:
            version = self._models.get(model_name, {}).get(number)
            if version is None:
                return
            version.state = ModelVersionStatus.UNLOADING
        self._free_if_unused(version)

    def close(self) -> None:
        """Frees every version at once; runs still going on are cancelled."""
        with self._lock:
            versions = [v for m in self._models.values() for v in m.values()]
            self._models.clear()
            self._closed = True
        for version in versions:
            if version.servable is not None:
                version.servable.close()

    def _free_if_unused(self, version: Version) -> None:
        with self._lock:
            retired = version.state == ModelVersionStatus.UNLOADING
            if not retired or version.borrowers:
                return
            servable, version.servable = version.servable, None
            version.state = ModelVersionStatus.END
        # Not under the lock: closing a session takes its time.
        if servable is not None:
            servable.close()

    def _find(self, model_spec: ModelSpec) -> tuple[Version, Servable]:
        name, wanted = model_spec.name, None
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if model_spec.HasField("version"):
            wanted = int(model_spec.version.value)
        elif model_spec.HasField("version_label"):
            label = model_spec.version_label
            wanted = self.labels.get(name, {}).get(label)
            if wanted is None:
                raise invalid(f"Unrecognized servable version label: {label}")
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


def _available(known: Mapping[int, Version]) -> dict[int, Version]:
    state = ModelVersionStatus.AVAILABLE
    return {
        n: version for n, version in known.items() if version.state == state
    }


def _make_status(number: int, version: Version) -> ModelVersionStatus:
    status = ModelVersionStatus(version=number, state=version.state)
    # Present though empty: no error.
    status.status.SetInParent()
    if version.error is not None:
        status.status.error_code = version.error.code.value[0]
        status.status.error_message = version.error.message
    return status
