"""Folders of the Hugging Face hub, and checkpoints in its layout.

Weights are read from safetensors alone. A pickle (`pytorch_model.bin`) can run
any code when it is opened, so it never is.
"""

import json
import re
from collections.abc import Mapping, Sequence
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
CHECKPOINT_FILES = (
    *(_CONFIG, "*.safetensors", "*.safetensors.index.json"),
    *("spiece.model", "tokenizer.json", "tokenizer_config.json"),
)
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


def find_folder(address: str, patterns: Sequence[str]) -> Path:
    """Gives a local folder, downloaded from the Hugging Face hub if need be.

    Args:
        address: A local folder, or `hf://organisation/name`, `@revision`
            (branch, tag or commit) after it or not.
        patterns: Names of the files that are downloaded, with or without `*`.

    Raises:
        InputError: There is no such folder, or it cannot be downloaded.
    """
    if not address.startswith(HUB_PREFIX):
        if not Path(address).is_dir():
            raise InputError(
                f"{address}: expected a folder or an address "
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

    what: Any = {"revision": match["revision"], "allow_patterns": [*patterns]}
    try:
        return Path(snapshot_download(match["repo"], **what))
    except Exception as error:
        # The client raises errors of many kinds for what is one case here.
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{address}: cannot be downloaded ({type(error).__name__}: "
            f"{reason}); give a local folder."
        ) from error


def list_tensors(folder: Path, *, prefix: str = "") -> dict[str, StoredTensor]:
    """Lists the tensors of a checkpoint, without their values.

    They go by their names without the prefix that a whole model puts before
    those of its encoder, and with today's endings.

    Raises:
        InputError: There are no safetensors, or a file is missing or damaged.
    """
    # Where both are there, transformers takes the one file, too.
    if (folder / _WEIGHTS).is_file():
        tensors = _list_file(folder / _WEIGHTS)
    elif (folder / _INDEX).is_file():
        tensors = _list_indexed(folder / _INDEX)
    else:
        found = sorted(path.name for path in folder.iterdir())
        raise InputError(
            f"{folder}: expected {_WEIGHTS} or {_INDEX}, found "
            f"{', '.join(found) or 'nothing'}. Pickles and other formats are "
            "never read; convert them once by transformers' "
            f"AlbertForMaskedLM.from_pretrained({str(folder)!r})"
            ".save_pretrained('converted')."
        )
    plain = {}
    for name, tensor in tensors.items():
        name = re.sub(r"\.gamma$", ".weight", name.removeprefix(prefix))
        plain[re.sub(r"\.beta$", ".bias", name)] = tensor
    return plain


def read_tensors(
    tensors: Mapping[str, StoredTensor],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    folder: Path,
) -> dict[str, NDArray[np.float32]]:
    """Reads the tensors that have a shape here, as float32.

    Raises:
        InputError: One of them is missing, has another shape or no floats.
    """
    faults = []
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if tensor is None:
            faults.append(f"{name} {shape} is missing")
            continue
        fault = None
        if tensor.shape != shape:
            fault = f"must be {shape}, is {tensor.shape}"
        elif tensor.dtype not in _FLOATS:
            fault = f"must be one of {', '.join(_FLOATS)}, is {tensor.dtype}"
        if fault:
            faults.append(f"{tensor.name} {fault} in {tensor.path.name}")
    if faults:
        shown = "; ".join(faults[:_SHOWN_FAULTS])
        if len(faults) > _SHOWN_FAULTS:
            shown += f"; and {len(faults) - _SHOWN_FAULTS} more"
        raise InputError(
            f"{folder}: expected the tensors of {_CONFIG}, found "
            f"{len(faults)} of {len(shapes)} at fault: {shown}."
        )
    return {name: tensors[name].read() for name in shapes}


def read_object(path: Path) -> dict[str, Any]:
    """Reads an object of a checkpoint's JSON, or raises an `InputError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: expected a checkpoint's JSON, found none: {error}."
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
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: expected a whole safetensors file, found none, a damaged "
            f"or another one ({error}); download or copy it again."
        ) from error
    return tensors


def _list_indexed(index: Path) -> dict[str, StoredTensor]:
    files = read_object(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(
            f"{index}: expected an object `weight_map` of file names by "
            f"tensor, found {files!r}."
        )
    tensors: dict[str, StoredTensor] = {}
    for file_name in sorted(set(map(str, files.values()))):
        # A foreign index must not name files outside of its folder.
        if not _FILE_NAME.fullmatch(file_name):
            raise InputError(
                f"{index}: expected names of .safetensors files in its own "
                f"folder, found {file_name!r}."
            )
        tensors |= _list_file(index.parent / file_name)
    return tensors
