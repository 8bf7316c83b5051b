"""What a server serves: versions of models, kept in step with the disk."""

import gc
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.status_pb2 import StatusProto
from tensorflow_serving.config.model_server_config_pb2 import (
    ModelConfig,
    ModelConfigList,
)

from .model_config import check_model_config, choose_versions, find_versions
from .servable import Servable
from .status import StatusError, invalid
from .warmup import warm_up

_LOGGER = logging.getLogger(__name__)


@dataclass
class Version:
    """What is known of a version; it stays when the model is gone."""

    state: int = ModelVersionStatus.LOADING
    servable: Servable | None = None
    # Empty: no error.
    status: StatusProto = field(default_factory=StatusProto)
    borrowers: int = 0


class ServedModels:
    """The versions of every model, as the configuration and the disk ask.

    A new version is loaded and warmed up before an old one ends. If it fails,
    the old one goes on, and the new one is not tried again while its folder
    stays. Who borrows a version keeps it alive: one that ends meanwhile
    answers no new request and is freed when its last borrower is done.
    Methods may be called from any thread; one change is made at a time.
    """

    def __init__(self) -> None:
        self._configs: dict[str, ModelConfig] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        # Named in the log once.
        self._ignored: set[Path] = set()
        self._lock = threading.Lock()
        # Held for as long as versions are loaded; requests go on.
        self._changing = threading.Lock()

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
            known = dict(self._versions.get(model_spec.name, {}))
        # TensorFlow Serving's status knows no labels.
        if model_spec.HasField("version"):
            wanted = int(model_spec.version.value)
            missing = f"version {wanted}"
            known = {n: v for n, v in known.items() if n == wanted}
        if not known:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find {missing} of model {model_spec.name}",
            )
        return [
            ModelVersionStatus(version=n, state=v.state, status=v.status)
            for n, v in sorted(known.items(), reverse=True)
        ]

    def available(self) -> dict[str, list[int]]:
        """Returns the versions that answer requests, in order, by model."""
        with self._lock:
            return {
                name: sorted(available)
                for name, known in sorted(self._versions.items())
                if (available := _available(known))
            }

    def _find(self, model_spec: ModelSpec) -> tuple[Version, Servable]:
        name, wanted = model_spec.name, None
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if model_spec.HasField("version"):
            wanted = int(model_spec.version.value)
        elif model_spec.HasField("version_label"):
            label = model_spec.version_label
            config = self._configs.get(name, ModelConfig())
            wanted = config.version_labels.get(label)
            if wanted is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        available = _available(self._versions.get(name, {}))
        number = max(available, default=-1) if wanted is None else wanted
        version = available.get(number)
        if version is None or version.servable is None:
            asked = f"Latest({name})"
            if wanted is not None:
                asked = f"Specific({name}, {wanted})"
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: {asked}",
            )
        return version, version.servable

    # === Changes ===

    def configure(self, models: ModelConfigList) -> None:
        """Serves these models and no others.

        Raises:
            ValueError: If the configuration cannot be served; nothing changes.
            StatusError: If a label moves to a version that is not available,
                and nothing changes, or if new models did not become available.
                All others are served then.
        """
        check_model_config(models)
        with self._changing:
            self._check_labels(models)
            new = {m.name for m in models.config} - self._configs.keys()
            self._configs = {model.name: model for model in models.config}
            for name, versions in self.available().items():
                if name not in self._configs:
                    self._end(name, versions)
            reasons = {m.name: self._follow(m) for m in models.config}
            gc.collect()
        missing = new - self.available().keys()
        if missing:
            errors = ", ".join(
                f"{{{name} due to error: {reasons[name]}}}" for name in missing
            )
            raise StatusError(
                grpc.StatusCode.UNKNOWN,
                f"{len(missing)} model(s) did not become available: "
                f"{{{errors}}}",
            )

    def look_again(self) -> None:
        """Follows what has changed on disk."""
        with self._changing:
            before = self.available()
            for model in self._configs.values():
                self._follow(model)
            if before != self.available():
                # Graphs are full of cycles: without this a version that ended
                # would fill the memory until Python happens to look.
                gc.collect()

    def close(self) -> None:
        """Frees every version at once; runs still going on are cancelled."""
        for known in self._versions.values():
            for version in known.values():
                self._free(version)

    def _check_labels(self, models: ModelConfigList) -> None:
        # As TensorFlow Serving with --allow_version_labels_for_unavailable_
        # models: a new label may name any version, a label that moves must
        # name one that is available before the change.
        available = self.available()
        for model in models.config:
            known = self._configs.get(model.name, model).version_labels
            for label, version in model.version_labels.items():
                moved = known.get(label, version) != version
                if moved and version not in available.get(model.name, []):
                    raise StatusError(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of "
                        f"model {model.name}, which is not currently available "
                        "for inference",
                    )

    def _follow(self, model: ModelConfig) -> str:
        """Brings one model up to date; returns why it could not be, if so."""
        name, base_path = model.name, Path(model.base_path)
        try:
            on_disk = find_versions(base_path)
            others = set(base_path.iterdir()) - set(on_disk.values())
        except OSError as error:
            _LOGGER.debug("Model %s stays as it is: %s", name, error)
            return str(error)
        for path in sorted(others - self._ignored):
            _LOGGER.warning("Ignored %s: it is no version of %s", path, name)
        self._ignored |= others
        with self._lock:
            known = self._versions.setdefault(name, {})
        for number in known.keys() - on_disk.keys():
            known[number].status = StatusProto()
        wanted = choose_versions(on_disk, model)
        failed = {n for n, v in known.items() if v.status.error_code}
        # The latest first: it is the one that most requests are for.
        for number in reversed(wanted):
            if number not in _available(known).keys() | failed:
                self._load(name, number, on_disk[number])
        available = _available(known).keys()
        if not wanted or not available.isdisjoint(wanted):
            self._end(name, available - set(wanted))
        errors = [v.status.error_message for v in known.values()]
        names = sorted(path.name for path in {*others, *on_disk.values()})
        return " ".join(filter(None, errors)) or (
            "A model's base path must hold a folder named by a version number "
            f"that is to be served, such as {base_path / '1'}. Found: "
            f"{names or 'nothing'}. Export a model into it, or name the folder "
            "above the version."
        )

    def _load(self, name: str, number: int, path: Path) -> None:
        _LOGGER.info("Loading version %d of %s", number, name)
        version = Version()
        with self._lock:
            self._versions[name][number] = version
        try:
            version.servable = Servable(number, path)
            warm_up(version.servable, path)
        # A broken model fails in a dozen types: in its files, protos, ops, run.
        except Exception as error:
            code = getattr(error, "error_code", tf.errors.UNKNOWN)
            version.status.error_code = code
            version.status.error_message = (
                "A version folder must hold a SavedModel tagged 'serve'. "
                f"Version {number} in {path} cannot be loaded: "
                f"{str(error).rstrip('.')}. Export the model again."
            )
            _LOGGER.error("%s", version.status.error_message)
            self._free(version)
        else:
            _LOGGER.info("Serving version %d of %s", number, name)
            version.state = ModelVersionStatus.AVAILABLE

    def _end(self, name: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            _LOGGER.info("Ending version %d of %s", number, name)
            version = self._versions[name][number]
            version.state = ModelVersionStatus.UNLOADING
            self._free_if_unused(version)

    def _free_if_unused(self, version: Version) -> None:
        with self._lock:
            ended = version.state == ModelVersionStatus.UNLOADING
            if not ended or version.borrowers:
                return
        self._free(version)

    def _free(self, version: Version) -> None:
        with self._lock:
            servable, version.servable = version.servable, None
            version.state = ModelVersionStatus.END
        # Not under the lock: closing a session takes its time.
        if servable is not None:
            servable.close()


def _available(known: Mapping[int, Version]) -> dict[int, Version]:
    state = ModelVersionStatus.AVAILABLE
    return {n: v for n, v in known.items() if v.state == state}
