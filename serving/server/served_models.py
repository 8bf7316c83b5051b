"""The models on disk, kept in step with the versions in a catalog."""

import gc
import logging
import threading
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.config.model_server_config_pb2 import (
    ModelConfig,
    ModelConfigList,
)

from ..errors import ServingError
from .catalog import Catalog, Labels
from .model_config import check_model_config
from .servable import Servable
from .status import StatusError
from .version_folders import (
    VersionFolder,
    choose_versions,
    explain_no_version,
    find_version_folders,
)
from .warmup import warm_up

_LOGGER = logging.getLogger(__name__)


class ServedModels:
    """Loads and ends versions as the configuration and the disk ask.

    A new version is loaded and warmed up before an old one ends. If it fails,
    the old one goes on, and the new one is not tried again while its folder
    stays. Methods may be called from any thread; one change is made at a time.

    Args:
        catalog: The versions to keep in step.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._models: dict[str, ModelConfig] = {}
        self._failed: dict[str, dict[int, str]] = {}
        self._lock = threading.Lock()

    def configure(self, models: ModelConfigList) -> dict[str, str]:
        """Serves these models and no others.

        Labels follow the rule of TensorFlow Serving with
        --allow_version_labels_for_unavailable_models: a new label may name any
        version, a label that moves must name one that is available before the
        change.

        Args:
            models: The models.

        Returns:
            By name, why new models did not become available. All others are
            served when the call returns.

        Raises:
            StatusError: If the configuration cannot be accepted; nothing has
                changed then.
        """
        check_model_config(models)
        with self._lock:
            self._catalog.labels = self._check_labels(models)
            new = [m.name for m in models.config if m.name not in self._models]
            self._models = {model.name: model for model in models.config}
            for name in self._catalog.model_names():
                if name not in self._models:
                    self._end(name, self._catalog.available(name))
            reasons = {m.name: self._follow(m) for m in models.config}
            gc.collect()
        return {
            name: reasons[name]
            for name in new
            if not self._catalog.available(name)
        }

    def look_again(self) -> None:
        """Follows what has changed on disk."""
        with self._lock:
            before = self._catalog_versions()
            for model in self._models.values():
                self._follow(model)
            if before != self._catalog_versions():
                # Graphs are full of cycles: without this a version that ended
                # would fill the memory until Python happens to look.
                gc.collect()

    def _follow(self, model: ModelConfig) -> str:
        """Brings one model up to date; returns why it could not be, if so."""
        name = model.name
        try:
            folders = find_version_folders(Path(model.base_path))
        except (ServingError, OSError) as error:
            _LOGGER.debug("Model %s stays as it is: %s", name, error)
            return str(error)
        on_disk = {folder.version for folder in folders}
        failed = self._failed.setdefault(name, {})
        for version in set(failed) - on_disk:
            del failed[version]
        wanted = choose_versions(folders, model)
        for folder in reversed(wanted):
            if folder.version not in (*failed, *self._catalog.available(name)):
                self._load(name, folder)
        versions = {folder.version for folder in wanted}
        available = set(self._catalog.available(name))
        if available & versions or not versions:
            self._end(name, available - versions)
        if failed:
            return " ".join(failed.values())
        return explain_no_version(Path(model.base_path))

    def _load(self, name: str, folder: VersionFolder) -> None:
        _LOGGER.info("Loading version %d of %s", folder.version, name)
        self._catalog.start_loading(name, folder.version)
        try:
            servable = _load_version(folder)
        except ServingError as error:
            _LOGGER.error("%s", error)
            self._failed[name][folder.version] = str(error)
            self._catalog.fail(name, folder.version, _status_of(error))
        else:
            self._catalog.add(name, servable)
            _LOGGER.info("Serving version %d of %s", folder.version, name)

    def _end(self, name: str, versions: set[int] | list[int]) -> None:
        for version in versions:
            _LOGGER.info("Ending version %d of %s", version, name)
            self._catalog.retire(name, version)

    def _catalog_versions(self) -> dict[str, list[int]]:
        return {n: self._catalog.available(n) for n in self._models}

    def _check_labels(self, models: ModelConfigList) -> Labels:
        labels = {m.name: dict(m.version_labels) for m in models.config}
        for name, versions in labels.items():
            known = self._catalog.labels.get(name, {})
            available = self._catalog.available(name)
            for label, version in versions.items():
                moved = known.get(label, version) != version
                if moved and version not in available:
                    raise StatusError(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of "
                        f"model {name}, which is not currently available for "
                        "inference",
                    )
        return labels


def _load_version(folder: VersionFolder) -> Servable:
    servable = Servable(folder)
    try:
        warm_up(servable, folder)
    except ServingError:
        servable.close()
        raise
    return servable


def _status_of(error: ServingError) -> StatusError:
    cause = error.__cause__
    if isinstance(cause, StatusError):
        return StatusError(cause.code, str(error))
    if isinstance(cause, tf.errors.OpError):
        return StatusError(StatusError.from_tensorflow(cause).code, str(error))
    return StatusError(grpc.StatusCode.UNKNOWN, str(error))
