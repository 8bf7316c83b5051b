"""Files of a checkpoint in Hugging Face's layout: config.json, safetensors.

Weights are read from safetensors alone. A pickle (`pytorch_model.bin`) can run
any code when it is opened, so it never is.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# safetensors can give bfloat16 to NumPy only if this is imported.
import ml_dtypes  # noqa: F401
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from bmt_keras.errors import InputError

HUB_PREFIX = "hf://"
_HUB_ADDRESS = re.compile(r"hf://(?P<repo>[^@]+)(@(?P<revision>.+))?")
_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
# Never a pickle, and none of what other frameworks read.
_DOWNLOADED = [
    *(_CONFIG, "*.safetensors", "*.safetensors.index.json"),
    *("spiece.model", "tokenizer.json", "tokenizer_config.json"),
]
_FILE_NAME = re.compile(r"[\w.-]+\.safetensors")
_FLOATS = ("F32", "F16", "BF16")
_SHOWN_FAULTS = 3


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file that is not read yet."""

    path: Path
    name: str  # in the file
    shape: tuple[int, ...]
    dtype: str  # in the format's words, such as "F32" or "BF16"

    def read(self) -> NDArray[np.float32]:
        """Reads the tensor as float32."""
        with safe_open(self.path, framework="numpy") as file:
            values: NDArray[Any] = file.get_tensor(self.name)
        return values.astype("float32")


def find_checkpoint(address: str) -> Path:
    """Gives the local folder of a checkpoint, downloading it if need be.

    Args:
        address: A local folder, or `hf://organisation/name` of the Hugging
            Face hub, `@revision` (branch, tag or commit) after it or not.

    Raises:
        InputError: There is no such folder, or it cannot be downloaded.
    """
    if not address.startswith(HUB_PREFIX):
        if not Path(address).is_dir():
            raise InputError(
                f"{address}: expected a checkpoint's folder or an address "
                "hf://organisation/name, found no such folder."
            )
        return Path(address)
    match = _HUB_ADDRESS.fullmatch(address)
    if match is None:
        raise InputError(
            "A hub's address must be hf://organisation/name or "
            f"hf://organisation/name@revision. Received: {address}."
        )
    # Its import takes long, and a local folder needs none of it.
    from huggingface_hub import snapshot_download

    repo, revision = match["repo"], match["revision"]
    try:
        return Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=_DOWNLOADED
            )
        )
    except Exception as error:
        # The client raises errors of many kinds for what is one case here.
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{address}: the checkpoint cannot be downloaded "
            f"({type(error).__name__}: {reason}); give a local folder by "
            "--text-weights."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a checkpoint's config.json, or raises an `InputError`."""
    return _read_object(folder / _CONFIG)


def list_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Lists the tensors of a checkpoint by name, without their values.

    Raises:
        InputError: There are no safetensors, a file is missing or damaged, or
            the index is at odds with the files.
    """
    # Where both are there, transformers takes the one file, too.
    if (folder / _WEIGHTS).is_file():
        return _list_file(folder / _WEIGHTS)
    if not (folder / _INDEX).is_file():
        found = sorted(path.name for path in folder.iterdir())
        raise InputError(
            f"{folder}: expected {_WEIGHTS} or {_INDEX}, found "
            f"{', '.join(found) or 'nothing'}. Pickles and other formats are "
            "never read; convert them once by transformers' "
            f"AlbertForMaskedLM.from_pretrained({str(folder)!r})"
            ".save_pretrained('converted')."
        )
    return _list_indexed(folder / _INDEX)


def check_tensors(
    tensors: Mapping[str, StoredTensor],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    folder: Path,
) -> None:
    """Raises an `InputError` unless these tensors are there and are floats."""
    faults = []
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if tensor is None:
            faults.append(f"{name} {shape} is missing")
            continue
        where = f" in {tensor.path.name}"
        if tensor.shape != shape:
            fault = f"must be {shape}, is {tensor.shape}"
            faults.append(f"{tensor.name} {fault}{where}")
        elif tensor.dtype not in _FLOATS:
            fault = f"must be one of {', '.join(_FLOATS)}, is {tensor.dtype}"
            faults.append(f"{tensor.name} {fault}{where}")
    if faults:
        shown = "; ".join(faults[:_SHOWN_FAULTS])
        if len(faults) > _SHOWN_FAULTS:
            shown += f"; and {len(faults) - _SHOWN_FAULTS} more"
        raise InputError(
            f"{folder}: expected the tensors of {_CONFIG}, found "
            f"{len(faults)} of {len(shapes)} at fault: {shown}."
        )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: expected a checkpoint's {path.name}, found no such file."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected JSON, found none: {error}."
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected a JSON object, found a {type(content).__name__}."
        )
    return content


def _list_file(path: Path) -> dict[str, StoredTensor]:
    tensors = {}
    try:
        with safe_open(path, framework="numpy") as file:
            # The handle is no mapping: it has keys, but no iterator.
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                shape, dtype = tuple(part.get_shape()), part.get_dtype()
                tensors[name] = StoredTensor(path, name, shape, dtype)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: expected a file of weights, found no such file."
        ) from error
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: expected a whole safetensors file, found a damaged or "
            f"another one ({error}); download or copy it again."
        ) from error
    return tensors


def _list_indexed(index: Path) -> dict[str, StoredTensor]:
    file_names = _read_object(index).get("weight_map")
    if not isinstance(file_names, dict) or not file_names:
        raise InputError(
            f"{index}: expected an object `weight_map` of file names by "
            f"tensor, found {file_names!r}."
        )
    for file_name in file_names.values():
        # A foreign index must not name files outside of its folder.
        is_name = isinstance(file_name, str)
        if not is_name or not _FILE_NAME.fullmatch(file_name):
            raise InputError(
                f"{index}: expected names of .safetensors files in its own "
                f"folder, found {file_name!r}."
            )
    tensors = {}
    for file_name in sorted(set(file_names.values())):
        stored = _list_file(index.parent / file_name)
        listed = {k for k, file in file_names.items() if file == file_name}
        if missing := sorted(listed - stored.keys()):
            raise InputError(
                f"{index}: expected {missing[0]} in {file_name}, found "
                f"{len(missing)} of its {len(listed)} tensors missing there."
            )
        tensors.update({name: stored[name] for name in listed})
    return tensors
