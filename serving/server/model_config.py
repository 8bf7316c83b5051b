"""Which models a server serves: TensorFlow Serving's model configuration."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import (
    ModelConfigList,
    ModelServerConfig,
)

from ..errors import ServingError
from .status import StatusError, invalid

# TensorFlow Serving can be built with others.
_PLATFORM = "tensorflow"


def read_model_config(path: str | Path) -> ModelConfigList:
    """Reads a `models.config` file.

    Args:
        path: A ModelServerConfig in text form with a `model_config_list`.

    Returns:
        The models in it.

    Raises:
        ServingError: If the file cannot be read or is of another form, or if
            a server cannot serve what it lists.
    """
    rule = "A model config file must hold a ModelServerConfig in text form"
    try:
        text = Path(path).read_text(encoding="utf-8")
        config = text_format.Parse(text, ModelServerConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ServingError(f"{rule}. Cannot read {path}: {error}.") from error
    models = config.model_config_list
    if not models.config:
        raise ServingError(
            f"{rule} with a model_config_list. Found in {path}: "
            f"{config.WhichOneof('config') or 'nothing'}, no model."
        )
    try:
        check_model_config(models)
    except StatusError as error:
        raise ServingError(f"{rule}. In {path}: {error.message}.") from error
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
    """Checks a configuration as TensorFlow Serving does, in its words."""
    # Each check looks at all models before the next one begins.
    names = [model.name for model in models.config]
    for name in names:
        if names.count(name) > 1:
            raise invalid(
                f"Illegal to list model {name} multiple times in config list"
            )
    for model in models.config:
        if not Path(model.base_path).is_absolute():
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}"
            )
    for model in models.config:
        # A model type is deprecated, and read from old files.
        if not model.model_platform and not model.model_type:
            raise invalid(
                "Illegal setting neither ModelServerConfig::model_type "
                "(deprecated) nor ModelServerConfig::model_platform."
            )
        if model.model_platform not in ("", _PLATFORM):
            raise invalid(
                f"Model {model.name} must be of platform {_PLATFORM}; got "
                f"{model.model_platform}"
            )
