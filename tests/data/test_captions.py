import json

import pytest

from bmt_keras.data.captions import (
    CaptionedImage,
    read_coco_captions,
    read_texts,
    split_images,
)
from bmt_keras.errors import InputError


def image(image_id, **changes):
    return {"id": image_id, "file_name": f"{image_id}.jpg", **changes}


def annotation(number, image_id, caption="a cat", **changes):
    fields = {"id": number, "image_id": image_id, "caption": caption}
    return {**fields, **changes}


@pytest.fixture
def read_text(tmp_path):
    def read_bytes(content, **options):
        path = tmp_path / "captions.json"
        path.write_bytes(content)
        return read_coco_captions(path, tmp_path, **options)

    return read_bytes


@pytest.fixture
def read(read_text):
    def read_content(images, annotations, **options):
        content = {"images": images, "annotations": annotations}
        text = json.dumps(content, ensure_ascii=False)
        return read_text(text.encode(), **options)

    return read_content


# === Reading ===


def test_every_image_has_all_its_captions_in_the_files_order(read, tmp_path):
    images = read(
        [image(7, height=480, license=3), image(3, file_name="val/three.png")],
        [
            annotation(1, 3, "one"),
            annotation(2, 7, "two", area=2.5),
            annotation(3, 3, "  größer\n"),
        ],
    )
    # Neither image is there.
    assert images == [
        CaptionedImage(7, tmp_path / "7.jpg", ("two",)),
        CaptionedImage(3, tmp_path / "val" / "three.png", ("one", "größer")),
    ]
    texts = read_texts(tmp_path / "captions.json")
    assert sorted(texts) == ["größer", "one", "two"]


def test_images_without_a_caption_are_left_out_with_a_warning(read, caplog):
    images = read([image(1), image(2), image(3)], [annotation(1, 2)])
    assert [image.image_id for image in images] == [2]
    assert "2 photos have no caption and are left out" in caplog.text


def test_limit_keeps_the_first_images_that_have_captions(read):
    images = read(
        [image(1), image(2), image(3), image(4)],
        [annotation(n, n) for n in (2, 3, 4)],
        limit=2,
    )
    assert [image.image_id for image in images] == [2, 3]


# === Refusals ===


def test_missing_captions_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: expected a captions"):
        read_coco_captions(tmp_path / "gone.json", tmp_path)


def test_missing_image_folder_is_named(tmp_path):
    (tmp_path / "captions.json").write_text("{}")
    with pytest.raises(InputError, match=r"no_images: expected a folder"):
        read_coco_captions(tmp_path / "captions.json", tmp_path / "no_images")


def test_folder_in_place_of_the_captions_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"the file cannot be read"):
        read_coco_captions(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images":\n  oops}', "line 2, column 3: Expecting"),
        (b"\xff\xd8\xff\xe0 an image", "cannot be read"),
        (b"[]", "lists `images` and `annotations`, found list"),
        (b"3", "lists `images` and `annotations`, found int"),
        (b"{}", "a list `images`, found none there"),
        (b'{"images": {}}', "a list `images`, found a dict there"),
        (b'{"images": []}', "a list `annotations`, found none"),
        (
            b'{"images": [], "annotations": "x"}',
            "a list `annotations`, found a str there",
        ),
    ],
)
def test_other_structure_is_named(read_text, content, message):
    with pytest.raises(InputError, match=r"captions\.json: .*" + message):
        read_text(content)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("1.jpg", r"images\[1\]: .* `id` of type int, found None"),
        ({"file_name": "2.jpg"}, r"images\[1\]: .* `id` of type int"),
        (image("2"), r"images\[1\]: .* `id` of type int, found '2'"),
        (image(2.0), r"images\[1\]: .* `id` of type int, found 2\.0"),
        (image(True), r"images\[1\]: .* `id` of type int, found True"),
        ({"id": 2}, r"images\[1\]: .* `file_name` of type str, found None"),
        (image(2, file_name=5), r"images\[1\]: .* `file_name` .* found 5"),
        (image(1), r"images\[1\]: the id 1 is a duplicate"),
    ],
)
def test_bad_image_entry_is_named_by_row_and_field(read, entry, message):
    with pytest.raises(InputError, match=r"captions\.json: " + message):
        read([image(1), entry], [annotation(1, 1)])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (None, r"annotations\[1\]: .* `id` of type int, found None"),
        ({"id": 2}, r"annotations\[1\]: .* `image_id` of type int"),
        (annotation("2", 1), r"annotations\[1\]: .* `id` .* found '2'"),
        (annotation(2, "1"), r"annotations\[1\]: .* `image_id` .* found '1'"),
        (annotation(2, 1, None), r"annotations\[1\]: .* `caption` .* None"),
        (annotation(2, 1, ["a"]), r"annotations\[1\]: .* `caption` .* \['a'\]"),
        (annotation(1, 1), r"annotations\[1\]: the id 1 is a duplicate"),
        (annotation(2, 9), r"annotations\[1\]: .* `image_id` listed .* 9"),
        (annotation(2, 1, " \n"), r"annotations\[1\]: .* empty .* \(image 1\)"),
    ],
)
def test_bad_annotation_is_named_by_row_and_field(read, entry, message):
    with pytest.raises(InputError, match=r"captions\.json: " + message):
        read([image(1)], [annotation(1, 1), entry])


def test_file_without_captions_is_refused(read):
    with pytest.raises(InputError, match=r"captions in `annotations`, found"):
        read([image(1)], [])


# === Splitting ===


@pytest.fixture
def images(tmp_path):
    return [
        CaptionedImage(n, tmp_path / f"{n}.jpg", (f"c{n}",)) for n in range(20)
    ]


def test_split_puts_every_image_on_one_side_in_the_given_order(images):
    train, val = split_images(images, 0.25, seed=3)
    assert (len(train), len(val)) == (15, 5)
    assert sorted(train + val, key=images.index) == images
    assert train == sorted(train, key=images.index)
    assert val == sorted(val, key=images.index)


def test_split_depends_on_its_seed_alone(images):
    one, again, other = (split_images(images, 0.5, seed=n) for n in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize("share", [0.0, 0.02, 0.98, 1.0])
def test_split_that_leaves_a_side_empty_is_refused(images, share):
    with pytest.raises(InputError, match=r"`val_share` must .* of 20 photos"):
        split_images(images, share, seed=0)
