import json

import cv2
import numpy as np
import pytest

from bmt_keras.errors import InputError
from bmt_keras.sample import (
    caption_is_true,
    draw_picture,
    generator,
    read_facts,
    read_truth,
    write_captions,
    write_facts,
    write_sample,
)

SETTINGS = {"num_train": 12, "num_val": 5, "seed": 1}


def read_bytes(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "new" / "sample"
    write_sample(folder, **SETTINGS)
    return folder


@pytest.fixture(params=["train", "val"])
def split(request):
    return request.param


def read_captions(folder, split):
    return json.loads((folder / f"captions_{split}.json").read_text())


def test_folder_holds_the_promised_files(sample):
    assert {path.name for path in sample.iterdir()} == {
        *("images", "sample.json"),
        *("captions_train.json", "captions_val.json"),
        *("facts_train.json", "facts_val.json"),
    }
    assert (sample / "images" / "train" / "000000000001.jpg").is_file()
    assert [path.name for path in sample.parent.iterdir()] == ["sample"]


def test_captions_have_the_layout_of_coco(sample, split):
    coco = read_captions(sample, split)
    assert set(coco) == {"info", "licenses", "images", "annotations"}
    count = SETTINGS[f"num_{split}"]
    assert len(coco["images"]) == count
    assert len({row["id"] for row in coco["annotations"]}) == 5 * count
    for row in coco["images"]:
        assert set(row) == {"id", "file_name", "height", "width"}
        assert (row["height"], row["width"]) == (64, 64)
    names = {row["file_name"] for row in coco["images"]}
    on_disk = {path.name for path in (sample / "images" / split).iterdir()}
    assert names == on_disk
    for row in coco["annotations"]:
        assert set(row) == {"id", "image_id", "caption"}


def test_every_annotation_is_true_of_its_picture(sample, split):
    facts = read_facts(sample / f"facts_{split}.json")
    captions = {image_id: () for image_id in facts}
    for row in read_captions(sample, split)["annotations"]:
        assert caption_is_true(row["caption"], facts[row["image_id"]])
        captions[row["image_id"]] += (row["caption"],)
    for image_id, scene in facts.items():
        assert captions[image_id] == write_captions(scene)
        # The file shows the scene in RGB.
        path = sample / "images" / split / f"{image_id:012d}.jpg"
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1]
        difference = np.abs(pixels.astype(int) - draw_picture(scene))
        assert difference.mean() < 2


def test_splits_share_neither_ids_nor_scenes(sample):
    train = read_facts(sample / "facts_train.json")
    val = read_facts(sample / "facts_val.json")
    assert not set(train) & set(val)
    assert not set(train.values()) & set(val.values())


def test_another_seed_gives_other_scenes_and_more_keep_the_first(
    sample, tmp_path
):
    write_sample(tmp_path / "other", **{**SETTINGS, "seed": 2})
    write_sample(tmp_path / "more", **{**SETTINGS, "num_train": 20})
    for name in ("facts_train.json", "facts_val.json"):
        first = read_facts(sample / name)
        assert read_facts(tmp_path / "other" / name) != first
        more = read_facts(tmp_path / "more" / name)
        assert len(more) == (20 if "train" in name else len(first))
        scenes = list(more.values())
        assert scenes[: len(first)] == list(first.values())


def test_a_sample_of_the_same_settings_is_left_as_it_is(tmp_path):
    folder = tmp_path / "sample"
    write_sample(folder, **SETTINGS)
    (folder / "captions_val.json").write_text("mine")
    write_sample(folder, **SETTINGS)
    assert (folder / "captions_val.json").read_text() == "mine"


def test_a_sample_of_other_settings_is_refused(sample):
    before = read_bytes(sample)
    with pytest.raises(
        InputError, match=r"sample must hold .*'seed': 9.*Found"
    ):
        write_sample(sample, **{**SETTINGS, "seed": 9})
    assert read_bytes(sample) == before


def test_a_foreign_folder_or_file_is_refused_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match=f"{path.name} exists and is not"):
            write_sample(path, **SETTINGS)
    assert read_bytes(tmp_path) == {"notes.txt": b"mine"}


def test_an_empty_folder_is_filled_with_the_same_bytes(sample, tmp_path):
    write_sample(tmp_path, **SETTINGS)
    assert read_bytes(tmp_path) == read_bytes(sample)
    assert list(tmp_path.parent.glob(f".*{tmp_path.name}")) == []


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(path, scenes):
        raise OSError("disk full")

    monkeypatch.setattr(generator, "write_facts", fail)
    with pytest.raises(OSError, match="disk full"):
        write_sample(tmp_path / "sample", **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_settings_out_of_range_are_refused(tmp_path):
    for wrong in ({"num_train": 0}, {"num_val": -1}, {"seed": -1}):
        with pytest.raises(InputError, match="must be positive"):
            write_sample(tmp_path / "sample", **{**SETTINGS, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_facts_survive_their_file(scenes, tmp_path):
    expected = dict(enumerate(scenes[:20], 5))
    write_facts(tmp_path / "facts.json", expected)
    assert read_facts(tmp_path / "facts.json") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "facts.json must be a JSON file"),
        ("{", "facts.json must be a JSON file"),
        ("[]", "facts.json must hold facts by image id.*list"),
        ('{"4": {}}', "facts.json, image '4': Facts of a scene"),
        ('{"four": {}}', "facts.json, image 'four'"),
    ],
)
def test_malformed_files_of_facts_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "facts.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_facts(tmp_path / "facts.json")


def test_truth_needs_the_facts_of_every_image(scenes, tmp_path):
    path = tmp_path / "facts.json"
    write_facts(path, {5: scenes[0]})
    assert read_truth(path, [5])(5, write_captions(scenes[0])[0])
    with pytest.raises(InputError, match=r"none of image 6 \(2 are missing\)"):
        read_truth(path, [5, 6, 7])
