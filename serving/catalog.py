"""What a server serves: loaded versions by model name."""

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec

from .servable import Servable
from .status import StatusError


class Catalog:
    """The loaded versions of every model, found by a request's model_spec.

    Example:
        ```python
        catalog = Catalog()
        catalog.add("bmt", servable)
        servable = catalog.find(ModelSpec(name="bmt"))
        ```
    """

    def __init__(self) -> None:
        self._models: dict[str, dict[int, Servable]] = {}

    def add(self, model_name: str, servable: Servable) -> None:
        """Makes a loaded version available under a model's name."""
        self._models.setdefault(model_name, {})[servable.version] = servable

    def find(self, model_spec: ModelSpec) -> Servable:
        """Finds the version that a request asks for.

        Args:
            model_spec: ModelSpec. Without a version the latest one is meant.

        Returns:
            Servable.

        Raises:
            StatusError: If the name is empty, or nothing of that name,
                version or label is loaded.
        """
        if not model_spec.name:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "ModelSpec has no name specified.",
            )
        if model_spec.HasField("version_label"):
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "Unrecognized servable version label: "
                f"{model_spec.version_label}",
            )
        versions = self._models.get(model_spec.name, {})
        if model_spec.HasField("version"):
            version = model_spec.version.value
            wanted = f"Specific({model_spec.name}, {version})"
        else:
            version = max(versions, default=-1)
            wanted = f"Latest({model_spec.name})"
        if version not in versions:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: {wanted}",
            )
        return versions[version]

    def list_statuses(self, model_spec: ModelSpec) -> list[ModelVersionStatus]:
        """Lists the state of a model's versions, the latest first.

        Args:
            model_spec: ModelSpec. With a version, that one alone is listed.

        Returns:
            list of ModelVersionStatus.

        Raises:
            StatusError: If nothing of that name or version is known.
        """
        versions = sorted(self._models.get(model_spec.name, {}), reverse=True)
        missing = f"any versions of model {model_spec.name}"
        if model_spec.HasField("version"):
            version = model_spec.version.value
            versions = [known for known in versions if known == version]
            missing = f"version {version} of model {model_spec.name}"
        if not versions:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND, f"Could not find {missing}"
            )
        return [_available(version) for version in versions]

    def close(self) -> None:
        """Frees every loaded version."""
        for versions in self._models.values():
            for servable in versions.values():
                servable.close()
        self._models.clear()


def _available(version: int) -> ModelVersionStatus:
    status = ModelVersionStatus(
        version=version, state=ModelVersionStatus.AVAILABLE
    )
    # Present though empty: no error.
    status.status.SetInParent()
    return status
