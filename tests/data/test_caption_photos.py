"""Photos are found where they are named a little otherwise."""

import os
import unicodedata
from pathlib import Path

import pytest

from bmt_keras.data.captions import read_captions
from bmt_keras.errors import InputError


@pytest.fixture
def find(tmp_path):
    """Reads captions of the named photos; gives what is found of each."""

    def find_names(names, folder=None):
        path = tmp_path / "captions.tsv"
        rows = "".join(f"{name}\ta cat\n" for name in names)
        path.write_text(f"file_name\ttext\n{rows}", encoding="utf-8")
        images = read_captions(path, folder or tmp_path / "photos")
        return [each.path for each in images]

    return find_names


@pytest.fixture
def photos(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "photos"

    return make


COMPOSED, APART = (unicodedata.normalize(x, "né.jpg") for x in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a\\b\\1.jpg", "a/b/1.jpg"),
        (".\\1.jpg", "1.jpg"),
        ("1.jpg", "1.JPG"),
        ("1.JPEG", "1.jpeg"),
        (COMPOSED, APART),
        (APART, COMPOSED),
        (f"é\\{COMPOSED}", f"é/{APART}"),
        ("a\\1.jpg", "a\\1.jpg"),
    ],
)
def test_the_one_file_that_fits_is_found(find, photos, name, file):
    folder = photos(file)
    assert find([name]) == [folder / file]


def test_exact_names_come_first(find, photos):
    folder = photos("1.jpg", "1.JPG", "2.JPG")
    assert find(["1.JPG", "1.jpg", "2.jpg"]) == [
        folder / name for name in ("1.JPG", "1.jpg", "2.JPG")
    ]


def test_of_two_files_that_fit_none_is_taken(find, photos):
    folder = photos("1.jpg", "1.JPG", "2.jpg")
    assert find(["1.Jpg", "2.jpg"]) == [folder / "1.Jpg", folder / "2.jpg"]


def test_other_case_of_the_name_is_another_photo(find, photos):
    folder = photos("a.jpg", "1.jpg")
    assert find(["A.jpg", "1.jpg"])[0] == folder / "A.jpg"


def test_two_spellings_of_a_file_are_one_image(find, photos):
    folder = photos("a/1.jpg")
    assert find(["a/1.jpg", "a\\1.JPG"]) == [folder / "a/1.jpg"]


def test_absolute_names_and_those_outside_are_found(find, photos, tmp_path):
    folder = photos("1.jpg")
    (tmp_path / "2.jpg").touch()
    names = [str(folder / "1.jpg"), "../2.jpg"]
    assert find(names) == [folder / "1.jpg", folder / "../2.jpg"]


def test_folder_may_be_the_one_one_is_in(find, photos, monkeypatch):
    monkeypatch.chdir(photos("1.jpg", "a/2.jpg"))
    paths = find(["1.jpg", "a/2.jpg", "../photos/a/2.jpg", "3.jpg"], Path())
    assert paths[:3] == [
        Path(x) for x in ("1.jpg", "a/2.jpg", "../photos/a/2.jpg")
    ]


@pytest.mark.parametrize(
    ("given", "names", "meant"),
    [
        ("photos", ["1.jpg", "2.jpg"], "photos/train2017"),
        ("photos/val2017", ["1.jpg", "2.jpg"], "photos/train2017"),
        ("photos/val2017", ["train2017/1.jpg"], "photos"),
    ],
)
def test_wrong_folder_is_recognised(
    find, photos, tmp_path, given, names, meant
):
    photos("train2017/1.jpg", "val2017/3.jpg")
    rule = f"{tmp_path / given}: none of the {len(names)} photos of "
    rule += rf".*is there, such as {names[0]}; did you mean {tmp_path / meant}"
    with pytest.raises(InputError, match=rule + r"\?$"):
        find(names, tmp_path / given)


def test_folder_without_any_of_the_photos_is_refused(find, photos):
    folder = photos("other.jpg")
    names = [f"{n}.jpg" for n in range(5000)]
    with pytest.raises(InputError, match=r"none of the 5,000 .* as 0\.jpg\.$"):
        find(names, folder)


def test_folders_are_listed_once_and_no_photo_is_looked_up(
    find, photos, monkeypatch
):
    names = [f"{side}/{n}.jpg" for side in "ab" for n in range(50)]
    folder = photos(*names)
    listed, list_folder = [], os.listdir

    def listdir(path):
        listed.append(Path(path))
        return list_folder(path)

    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(os.path, "exists", refuse)
    monkeypatch.setattr(Path, "is_file", refuse)
    monkeypatch.setattr(Path, "exists", refuse)
    assert find(names) == [folder / name for name in names]
    assert listed == [folder / "a", folder / "b"]
