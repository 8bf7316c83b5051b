import json
import shutil
from pathlib import Path

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bmt_keras.errors import InputError
from bmt_keras.models.checkpoint_files import (
    CHECKPOINT_FILES,
    find_folder,
    list_tensors,
    read_object,
    read_tensors,
)

SHARDED = Path(__file__).parents[1] / "golden" / "albert" / "sharded"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path):
    return Path(shutil.copytree(SHARDED, tmp_path / "sharded"))


def write_index(folder, weight_map):
    folder.mkdir(exist_ok=True)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_local_folder_is_taken_as_it_is(tmp_path):
    assert find_folder(str(tmp_path), []) == tmp_path


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: expected a folder"):
        find_folder(str(tmp_path / "nowhere"), [])


@pytest.mark.parametrize(
    ("address", "revision"),
    [("hf://albert/base", None), ("hf://albert/base@refs/pr/1", "refs/pr/1")],
)
def test_hub_address_downloads_no_pickle(
    tmp_path, monkeypatch, address, revision
):
    calls = []

    def download(repo, **options):
        calls.append((repo, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_folder(address, CHECKPOINT_FILES) == tmp_path
    [(repo, options)] = calls
    assert repo == "albert/base"
    assert options["revision"] == revision
    patterns = options["allow_patterns"]
    assert {"config.json", "*.safetensors", "spiece.model"} <= set(patterns)
    names = ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack")
    assert not any(Path(n).match(p) for n in names for p in patterns)


def test_failed_download_asks_for_a_local_folder(monkeypatch):
    def download(repo, **options):
        raise ConnectionError("no such host\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    match = r"no such host\); give a local folder\.$"
    with pytest.raises(InputError, match=match):
        find_folder("hf://albert/base", [])


@pytest.mark.parametrize("address", ["hf://", "hf://albert/base@", "hf://@v1"])
def test_malformed_hub_address_is_refused(address):
    with pytest.raises(InputError, match="must be hf://organisation/name"):
        find_folder(address, [])


def test_tensors_of_several_files_are_read_by_name():
    stored = {}
    for path in SHARDED.glob("*.safetensors"):
        stored.update(load_file(path))
    tensors = list_tensors(SHARDED)
    assert tensors.keys() == stored.keys()
    assert len({tensor.path for tensor in tensors.values()}) == 4
    for name, tensor in tensors.items():
        assert tensor.shape == stored[name].shape
        np.testing.assert_array_equal(tensor.read(), stored[name])


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32"])
def test_every_float_type_is_read_as_float32(tmp_path, dtype):
    values = np.array([[1.5, -0.1], [3.0, 7.0]], dtype)
    save_file({"kernel": values}, tmp_path / "model.safetensors")
    read = list_tensors(tmp_path)["kernel"].read()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.astype("float32"))


def test_one_file_goes_before_an_index(sharded):
    save_file({"alone": np.ones(2, "float32")}, sharded / "model.safetensors")
    assert list(list_tensors(sharded)) == ["alone"]


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "tf_model.h5", "model.ckpt", "model.bin"]
)
def test_other_weights_are_never_read_and_told_how_to_convert(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=f"found {name}. Pickles") as error:
        list_tensors(tmp_path)
    assert "never read" in str(error.value)
    assert ".save_pretrained('converted')" in str(error.value)


@pytest.mark.parametrize("length", [None, -1, 200, 8, 0])
def test_missing_or_cut_file_is_named(sharded, length):
    path = sharded / "model-00002-of-00004.safetensors"
    content = path.read_bytes()
    path.unlink()
    if length is not None:
        path.write_bytes(content[:length])
    with pytest.raises(InputError, match="00002-of-00004"):
        list_tensors(sharded)


def test_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"PK\x03\x04" * 20)
    with pytest.raises(InputError, match="a damaged or another one"):
        list_tensors(tmp_path)


def test_tensor_that_only_the_index_has_is_missing(tmp_path):
    folder = write_index(tmp_path, {"a": "x.safetensors", "b": "x.safetensors"})
    save_file({"a": np.ones(2, "float32")}, folder / "x.safetensors")
    shapes = {"a": (2,), "b": (2,)}
    with pytest.raises(InputError, match=r"1 of 2 at fault: b \(2,\) is mis"):
        read_tensors(list_tensors(folder), shapes, folder=folder)


def test_names_are_those_of_today_without_the_prefix(tmp_path):
    names = ["bert.x.gamma", "bert.x.beta", "bert.gamma.weight", "y.weight"]
    stored = {name: np.ones(1, "float32") for name in names}
    save_file(stored, tmp_path / "model.safetensors")
    tensors = list_tensors(tmp_path, prefix="bert.")
    assert {tensor.name: name for name, tensor in tensors.items()} == dict(
        zip(
            names,
            ["x.weight", "x.bias", "gamma.weight", "y.weight"],
            strict=True,
        )
    )


@pytest.mark.parametrize(
    "file_name",
    [
        *("../x.safetensors", "/elsewhere/x.safetensors", "sub/x.safetensors"),
        *("..\\x.safetensors", "pytorch_model.bin", "", 7),
    ],
)
def test_index_may_not_name_files_elsewhere(tmp_path, file_name):
    save_file({"a": np.ones(2, "float32")}, tmp_path / "x.safetensors")
    folder = write_index(tmp_path / "checkpoint", {"a": file_name})
    with pytest.raises(InputError, match="files in its own folder"):
        list_tensors(folder)


@pytest.mark.parametrize("weight_map", [None, {}, ["x.safetensors"]])
def test_index_without_a_map_is_refused(tmp_path, weight_map):
    folder = write_index(tmp_path, weight_map)
    with pytest.raises(InputError, match="an object `weight_map`"):
        list_tensors(folder)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "expected a checkpoint's JSON, found none: .*No such file"),
        (b"{", "expected a checkpoint's JSON, found none"),
        (b"\xff\xfe", "expected a checkpoint's JSON, found none"),
        (b"[1]", "expected a JSON object, found a list"),
        (b"[" * 100_000, "expected a checkpoint's JSON, found none"),
    ],
)
def test_unreadable_config_is_named(tmp_path, content, match):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=f"config.json: {match}"):
        read_object(tmp_path / "config.json")


def test_faulty_tensors_are_named_and_counted(tmp_path):
    stored = {
        "good": np.ones((2, 3), "float32"),
        "more than expected": np.ones(1, "int64"),
        "turned": np.ones((3, 2), "float32"),
        "whole": np.ones(4, "int64"),
    }
    save_file(stored, tmp_path / "model.safetensors")
    shapes = {"good": (2, 3), "turned": (2, 3), "whole": (4,)}
    shapes |= {"first": (1,), "second": (1,)}
    with pytest.raises(InputError) as error:
        read_tensors(list_tensors(tmp_path), shapes, folder=tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected the tensors of config.json, found 4 "
        "of 5 at fault: turned must be (2, 3), is (3, 2) in "
        "model.safetensors; whole must be one of F32, F16, BF16, is I64 in "
        "model.safetensors; first (1,) is missing; and 1 more."
    )
