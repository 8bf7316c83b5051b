"""Which models and versions a server serves, by its configuration."""

import re
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import (
    ModelConfig,
    ModelConfigList,
    ModelServerConfig,
)

from ..errors import ServingError

# TensorFlow Serving can be built with others.
_PLATFORM = "tensorflow"


def read_model_config(
    path: str | Path, default: ModelConfigList | None = None
) -> ModelConfigList:
    """Reads a `models.config` file.

    Args:
        path: A ModelServerConfig in text form.
        default: What an empty file stands for; None for no models.

    Returns:
        The models in its `model_config_list`.

    Raises:
        ServingError: If the file cannot be read or is of another form, or if
            a server cannot serve what it lists.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        config = text_format.Parse(text, ModelServerConfig())
        kind = config.WhichOneof("config")
        if kind is None and default is not None:
            return default
        if kind == "custom_model_config":
            raise ValueError("It holds a custom_model_config")
        models = config.model_config_list
        check_model_config(models)
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ServingError(
            "A model config file must hold a ModelServerConfig in text form "
            f"with a model_config_list. Cannot serve {path}: {error}."
        ) from error
    return models


def make_model_config(model_name: str, base_path: Path) -> ModelConfigList:
    """Makes the configuration of one model, of which the latest is served."""
    models = ModelConfigList()
    models.config.add(
        name=model_name,
        base_path=str(base_path.absolute()),
        model_platform=_PLATFORM,
    )
    return models


def check_model_config(models: ModelConfigList) -> None:
    """Raises a ValueError in TensorFlow Serving's words where it would."""
    names = [model.name for model in models.config]
    for model in models.config:
        if names.count(model.name) > 1:
            raise ValueError(
                f"Illegal to list model {model.name} multiple times in config "
                "list"
            )
        if not Path(model.base_path).is_absolute():
            raise ValueError(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}"
            )
        # A model type is deprecated, and read from old files.
        platform = model.model_platform or (model.model_type and _PLATFORM)
        if platform != _PLATFORM:
            raise ValueError(
                f"Model {model.name} must have the model_platform {_PLATFORM}; "
                f"got {platform or 'none'}"
            )


# === Versions on disk ===


def find_versions(base_path: Path) -> dict[int, Path]:
    """Finds a model's versions: its numbered folders, the oldest first.

    "00000123" is version 123. Everything else is ignored, so that a new
    version can be written under another name and then renamed.

    Raises:
        OSError: If the base path cannot be listed.
    """
    if not base_path.is_dir():
        raise FileNotFoundError(
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


def choose_versions(on_disk: Iterable[int], model: ModelConfig) -> list[int]:
    """Returns the versions on disk that the policy of a model wants."""
    policy = model.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return list(on_disk)
    if kind == "specific":
        return [n for n in on_disk if n in policy.specific.versions]
    # Unset means the latest.
    return list(on_disk)[-max(policy.latest.num_versions, 1) :]
