"""The command line without a process of its own, and what it is given."""

import functools
import json
import sys
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from bmt_keras.captioner import Captioner
from bmt_keras.commands import main


@dataclass(frozen=True)
class Result:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def bmt(monkeypatch, capfd):
    """Runs `bmt` with the given arguments."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bmt", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Result(end.value.code or 0, *capfd.readouterr())

    return run


@pytest.fixture
def refuse(bmt, tmp_path):
    """Runs `bmt`, which must refuse in one line and write no file."""

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        result = bmt(*arguments)
        assert result.code == 2, result
        assert result.out == ""
        (line,) = result.err.splitlines()
        assert line.startswith("bmt: ")
        assert sorted(tmp_path.rglob("*")) == before
        return line

    return run


@pytest.fixture
def write_captions(tmp_path):
    """Writes photos and a captions file; gives the options that name them."""

    def write(image_ids=range(1, 7), *, broken=(), absent=(), name="photos"):
        folder = tmp_path / name
        folder.mkdir()
        for image_id in set(image_ids) - set(absent):
            pixels = np.full((8, 8, 3), 10 * image_id, np.uint8)
            content = cv2.imencode(".jpg", pixels)[1].tobytes()
            if image_id in broken:
                content = content[:100]
            (folder / f"{image_id}.jpg").write_bytes(content)
        content = {
            "images": [
                {"id": image_id, "file_name": f"{image_id}.jpg"}
                for image_id in image_ids
            ],
            "annotations": [
                {"id": n, "image_id": image_id, "caption": f"a photo of {n}"}
                for n, image_id in enumerate(image_ids)
            ],
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        return ["--captions", path, "--images", folder]

    return write


@pytest.fixture(scope="session")
def load_once():
    """Loads a captioner once: each one traces its graphs, for seconds."""
    return functools.cache(Captioner.from_preset)


@pytest.fixture(scope="session")
def saved_captioner(tiny_captioner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "captioner"
    tiny_captioner.save_to_preset(folder)
    return folder


@pytest.fixture
def captioner_folder(saved_captioner, load_once, monkeypatch):
    """The folder of the tiny captioner, which is not to be changed."""
    monkeypatch.setattr(Captioner, "from_preset", load_once)
    return saved_captioner


@pytest.fixture(params=["prepare", "train"])
def reading(request, tmp_path):
    """A command that reads captions, with the folder that it is to write."""
    option = {"prepare": "--cache", "train": "--out"}[request.param]
    return [request.param, option, tmp_path / "written"]


@pytest.fixture
def prepare(tmp_path):
    """`bmt prepare` of tiny photos."""
    size = ("--image-height", 8, "--image-width", 8)
    return ["prepare", *size, "--cache", tmp_path / "cache"]
