"""What any command refuses at once, before TensorFlow takes its seconds."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from bmt_keras.commands.options import dashed
from bmt_keras.errors import InputError
from bmt_keras.presets import PRESETS
from bmt_keras.settings import Settings

# Options that do nothing where another one is given (True), is not (None), is
# 0 or off (False), or has a value. A command that lacks one has no such rule.
_VOID: tuple[tuple[str, str, bool | str | None], ...] = (
    ("val_share", "val_captions", True),
    ("val_images", "val_captions", None),
    ("runner_options", "runner", None),
    ("length keyword num_captions temperature top_p", "template", True),
    ("seed length_candidates mbr_samples", "template", True),
    ("scores grid num_captions", "out", True),
    ("num_captions", "grid", True),
    # Samples for minimum Bayes risk have a seed, too.
    ("top_p", "temperature", False),
    ("mbr_samples", "temperature", True),
    ("models name", "model_config_file", True),
    ("config_poll_seconds", "model_config_file", None),
    ("rest_cors", "rest_port", None),
    ("version", "label", True),
    ("key", "certificate", None),
    ("certificate", "key", None),
    ("tls_key tls_client_ca", "tls_certificate", None),
    ("tls_certificate", "tls_key", None),
    ("passes", "order", "left_to_right"),
    ("warmup_share", "schedule", "constant"),
    ("concept_weight", "concept_dim", False),
    ("min_token_count", "prune_vocabulary", False),
    ("fusion_num_layers fusion_num_heads", "fusion", "concat"),
)
_FILES = {
    "captions val_captions": "a captions file",
    "images val_images": "a folder of photos",
    "text": "a text file of captions",
    "vocabulary": "a SentencePiece model",
    "image_weights": "a file of image weights",
    "metrics": "figures as `bmt evaluate` writes them",
    "models model_config_file": "what is to be served",
    "ca certificate key tls_key tls_certificate tls_client_ca": "a PEM file",
}
_NO_FILES = ("imagenet", "random")  # image weights of no file


class EarlyCommand(TyperCommand):
    """A command whose options are looked at before it runs."""

    def invoke(self, ctx: Any) -> Any:
        """Refuses void options and missing files, or runs the command."""
        params, source = dict(ctx.params), ctx.get_parameter_source
        given = {name for name in params if source(name).name != "DEFAULT"}
        # A preset that is none is refused later.
        if preset := PRESETS.get(params.get("preset", "")):
            for name in (each.name for each in Settings.options()):
                if params.get(name) is None:
                    params[name] = preset.get(name)
        _refuse_void(given, params)
        _refuse_missing(params)
        return super().invoke(ctx)


def _refuse_void(given: Set[str], params: Mapping[str, Any]) -> None:
    for names, other, state in _VOID:
        void = [name for name in names.split() if name in given]
        if not void or other not in params:
            continue
        value, name = params[other], dashed(void[0])
        if state == (bool(value) if isinstance(state, bool) else value):
            how = f"{'with' if state else 'without'} `{dashed(other)}"
            how += f" {state}`" if isinstance(state, str) else "`"
            raise InputError(
                f"`{name}` cannot be given {how}. Received: "
                f"{name}={params[void[0]]}."
            )


def _refuse_missing(params: Mapping[str, Any]) -> None:
    files = dict(params)
    if files.get("model_config_file"):
        del files["models"]
    for names, what in _FILES.items():
        for path in (files.get(name) for name in names.split()):
            # Lists are of images, some of which may be missing.
            if not path or isinstance(path, list) or path in _NO_FILES:
                continue
            if not Path(path).exists():
                raise InputError(
                    f"{path}: expected {what}, found no such file or folder."
                )
    for folder in (params.get("captioner"), params.get("start")):
        if not folder or folder.startswith("hf://"):
            continue
        if not Path(folder, "model.keras").is_file():
            raise InputError(
                f"{folder}: expected a captioner's folder with model.keras, "
                "found none; train one by `bmt train`."
            )
