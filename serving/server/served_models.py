"""The models on disk, kept in step with the versions in a catalog."""

import gc
import logging
import re
import threading
from collections.abc import Iterable
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import (
    ModelConfig,
    ModelConfigList,
)

from ..errors import ServingError
from .catalog import Catalog, Labels, Version
from .model_config import check_model_config
from .servable import Servable
from .status import StatusError
from .warmup import warm_up

_LOGGER = logging.getLogger(__name__)


class ServedModels:
    """Loads and ends versions as the configuration and the disk ask.

    A new version is loaded and warmed up before an old one ends. If it fails,
    the old one goes on, and the new one is not tried again while its folder
    stays. Methods may be called from any thread; one change is made at a time.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._models: dict[str, ModelConfig] = {}
        self._failed: dict[str, dict[int, str]] = {}
        self._lock = threading.Lock()

    def configure(self, models: ModelConfigList) -> dict[str, str]:
        """Serves these models and no others.

        Returns why new models did not become available, by name. All others
        are served when the call returns.
        """
        check_model_config(models)
        with self._lock:
            self._catalog.labels = self._check_labels(models)
            new = [m.name for m in models.config if m.name not in self._models]
            self._models = {model.name: model for model in models.config}
            for name, versions in self._catalog.available().items():
                if name not in self._models:
                    self._end(name, versions)
            reasons = {m.name: self._follow(m) for m in models.config}
            gc.collect()
        available = self._catalog.available()
        return {name: reasons[name] for name in new if name not in available}

    def look_again(self) -> None:
        """Follows what has changed on disk."""
        with self._lock:
            before = self._catalog.available()
            for model in self._models.values():
                self._follow(model)
            if before != self._catalog.available():
                # Graphs are full of cycles: without this a version that ended
                # would fill the memory until Python happens to look.
                gc.collect()

    def _follow(self, model: ModelConfig) -> str:
        """Brings one model up to date; returns why it could not be, if so."""
        name, base_path = model.name, Path(model.base_path)
        try:
            on_disk = find_versions(base_path)
        except (ServingError, OSError) as error:
            _LOGGER.debug("Model %s stays as it is: %s", name, error)
            return str(error)
        failed = self._failed.setdefault(name, {})
        for version in failed.keys() - on_disk.keys():
            del failed[version]
        wanted = _choose_versions(on_disk, model)
        available = self._catalog.available().get(name, [])
        # The latest first: it is the one that most requests are for.
        for version in reversed(wanted):
            if version not in failed and version not in available:
                self._load(name, version, on_disk[version])
        available = self._catalog.available().get(name, [])
        if not wanted or not set(wanted).isdisjoint(available):
            self._end(name, set(available) - set(wanted))
        return " ".join(failed.values()) or _explain_no_version(base_path)

    def _load(self, name: str, version: int, path: Path) -> None:
        _LOGGER.info("Loading version %d of %s", version, name)
        self._catalog.put(name, version, Version())
        servable = None
        try:
            servable = Servable(version, path)
            warm_up(servable, path)
        except ServingError as error:
            if servable is not None:
                servable.close()
            _LOGGER.error("%s", error)
            self._failed[name][version] = str(error)
            loaded = Version(ModelVersionStatus.END, error=_status_of(error))
        else:
            _LOGGER.info("Serving version %d of %s", version, name)
            loaded = Version(ModelVersionStatus.AVAILABLE, servable)
        self._catalog.put(name, version, loaded)

    def _end(self, name: str, versions: Iterable[int]) -> None:
        for version in versions:
            _LOGGER.info("Ending version %d of %s", version, name)
            self._catalog.retire(name, version)

    def _check_labels(self, models: ModelConfigList) -> Labels:
        # As TensorFlow Serving with --allow_version_labels_for_unavailable_
        # models: a new label may name any version, a label that moves must
        # name one that is available before the change.
        labels = {m.name: dict(m.version_labels) for m in models.config}
        available = self._catalog.available()
        for name, versions in labels.items():
            known = self._catalog.labels.get(name, {})
            for label, version in versions.items():
                moved = known.get(label, version) != version
                if moved and version not in available.get(name, []):
                    raise StatusError(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of "
                        f"model {name}, which is not currently available for "
                        "inference",
                    )
        return labels


def _status_of(error: ServingError) -> StatusError:
    code, cause = grpc.StatusCode.UNKNOWN, error.__cause__
    if isinstance(cause, tf.errors.OpError):
        cause = StatusError.from_tensorflow(cause)
    if isinstance(cause, StatusError):
        code = cause.code
    return StatusError(code, str(error))


# === Versions on disk ===


def find_versions(base_path: Path) -> dict[int, Path]:
    """Finds a model's versions: its numbered folders, the oldest first.

    "00000123" is version 123. Everything else is ignored, so that a new
    version can be written under another name and then renamed.
    """
    if not base_path.is_dir():
        raise ServingError(
            f"A model's base path must be a folder. Not found: {base_path}. "
            "Export a model into it first."
        )
    # "7" and "007" are one version. TensorFlow Serving's numbers have 64 bits.
    return dict(
        sorted(
            (int(path.name), path)
            for path in base_path.iterdir()
            if re.fullmatch("[0-9]+", path.name)
            and int(path.name) < 2**63
            and path.is_dir()
        )
    )


def _choose_versions(on_disk: Iterable[int], model: ModelConfig) -> list[int]:
    policy = model.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return list(on_disk)
    if kind == "specific":
        return [n for n in on_disk if n in policy.specific.versions]
    # Unset means the latest.
    return list(on_disk)[-max(policy.latest.num_versions, 1) :]


def _explain_no_version(base_path: Path) -> str:
    names = sorted(path.name for path in base_path.iterdir())
    return (
        "A model's base path must hold a folder named by a version number that "
        f"is to be served, such as {base_path / '1'}. Found: "
        f"{names or 'nothing'}. Export a model into it, or name the folder "
        "above the version."
    )
