"""Captions in COCO's format and its dialects, and the two sides of a run."""

import gzip
import json
import logging

import pytest

from bmt_keras.data.captions import (
    CaptionedImage,
    drop_final_period,
    read_captions,
    read_sides,
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
        # One photo is there: with none, the folder would be refused.
        (tmp_path / "1.jpg").touch()
        return read_captions(path, tmp_path, **options)

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
        [
            image(7, height=480, license=3),
            image(3, file_name="val/three.png"),
            image(1),
        ],
        [
            annotation(1, 3, "one"),
            annotation(2, 7, "two", area=2.5),
            annotation(3, 3, "  größer\n"),
            annotation(4, 1, "four"),
        ],
    )
    # Neither of the first two is there.
    assert images == [
        CaptionedImage(7, tmp_path / "7.jpg", ("two",)),
        CaptionedImage(3, tmp_path / "val" / "three.png", ("one", "größer")),
        CaptionedImage(1, tmp_path / "1.jpg", ("four",)),
    ]
    texts = read_texts(tmp_path / "captions.json")
    # In the order of the captions.
    assert texts == ["one", "größer", "two", "four"]


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


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: gzip.compress(text.encode(), mtime=0),
        lambda text: gzip.compress(text.encode("utf-16"), mtime=0),
        lambda text: f"\r\n  {text}\r\n".encode(),
    ],
)
def test_encoding_and_compression_are_told_by_the_content(read_text, encode):
    content = {"images": [image(1)], "annotations": [annotation(1, 1, "größ")]}
    (only,) = read_text(encode(json.dumps(content, ensure_ascii=False)))
    assert only.captions == ("größ",)


# === Dialects ===


@pytest.mark.parametrize(
    ("image_id", "other"),
    [("1", 1), (1.0, "1"), ("0001", "1.0"), (1, 1.0), ("1", "1")],
)
def test_ids_of_other_spellings_are_whole_numbers(read, image_id, other):
    (only,) = read([image(image_id, file_name="1.jpg")], [annotation(1, other)])
    assert (only.image_id, only.captions) == (1, ("a cat",))


def test_ids_of_text_join_and_become_running_numbers(read):
    images = read(
        [image("b"), image("1"), image("00c")],
        [annotation(1, each, each) for each in ("00c", "1", "b")],
    )
    assert [(each.image_id, each.captions) for each in images] == [
        (0, ("b",)),
        (1, ("1",)),
        (2, ("00c",)),
    ]


def test_ids_of_captions_may_be_missing_or_repeated(read):
    (only,) = read(
        [image(1)],
        [
            {"image_id": 1, "caption": "no id"},
            annotation(5, 1, "one"),
            annotation(5, 1, "two"),
            annotation("x", 1, "three"),
        ],
    )
    assert only.captions == ("no id", "one", "two", "three")


def test_rows_of_one_file_are_one_image_with_all_captions(read, tmp_path):
    images = read(
        [
            image(4, file_name="1.jpg"),
            image(5, file_name="2.jpg"),
            image(6, file_name="./1.jpg"),
            image(5, file_name="2.jpg"),
        ],
        [annotation(n, n, f"of {n}") for n in (6, 5, 4)],
    )
    assert images == [
        CaptionedImage(4, tmp_path / "1.jpg", ("of 6", "of 4")),
        CaptionedImage(5, tmp_path / "2.jpg", ("of 5",)),
    ]


# === Rows that cannot be used ===

BAD_IMAGES = [
    ("1.jpg", r"images\[1\]: .* 64 bits, or text, in `id`, found None"),
    ({"file_name": "2.jpg"}, r"images\[1\]: .* in `id`, found None"),
    (image(True), r"images\[1\]: .* in `id`, found True"),
    (image(2.5), r"images\[1\]: .* in `id`, found 2\.5"),
    (image(2**63), r"images\[1\]: .* at most 64 bits, .* 9223372036854775808"),
    (image(1e300), r"images\[1\]: .* at most 64 bits, .* 1e\+300"),
    (image([[[[7]]]]), r"images\[1\]: .* `id`, found \[\[\["),
    ({"id": 2}, r"images\[1\]: .* text in `file_name`, found None"),
    (image(2, file_name=5), r"images\[1\]: .* `file_name`, found 5"),
    (image(2, file_name=" "), r"images\[1\]: .* `file_name`, found ' '"),
]
BAD_ANNOTATIONS = [
    (None, r"annotations\[1\]: .* in `image_id`, found None"),
    ({"id": 2}, r"annotations\[1\]: .* in `image_id`, found None"),
    (annotation(2, 9), r"annotations\[1\]: .* listed in `images`, found 9"),
    (annotation(2, 1, None), r"annotations\[1\]: .* `caption`, found None"),
    (annotation(2, 1, 7), r"annotations\[1\]: .* `caption`, found 7"),
    (annotation(2, 1, " \n"), r"annotations\[1\]: .* `caption`, found ' \\n'"),
    (annotation(2, 1, "x\ud83d"), r"annotations\[1\]: .* `caption`, found 'x"),
]


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        *(([entry], [], message) for entry, message in BAD_IMAGES),
        *(([], [entry], message) for entry, message in BAD_ANNOTATIONS),
    ],
)
def test_bad_row_is_named_or_left_out_with_a_warning(
    read_text, caplog, images, annotations, message
):
    content = {
        "images": [image(1), *images],
        "annotations": [annotation(1, 1), *annotations],
    }
    text = json.dumps(content).encode()
    with pytest.raises(InputError, match=r"captions\.json: " + message) as info:
        read_text(text)
    advice = "(1 of 1 unusable rows). Mend or leave them out by --skip-bad."
    assert str(info.value).endswith(advice)
    (only,) = read_text(text, skip_bad=True)
    assert only.captions == ("a cat",)
    (record,) = caplog.records
    assert record.message.endswith("(1 of 1 unusable rows). They are left out.")


def test_bad_rows_are_counted_and_the_first_is_named(read, tmp_path):
    annotations = [annotation(n, n) for n in (1, 7, 8, 1)]
    with pytest.raises(InputError, match=r"annotations\[1\].* \(1 of 2 un"):
        read([image(1)], annotations)
    assert len(read_texts(tmp_path / "captions.json", skip_bad=True)) == 2


def test_captions_of_an_image_that_is_left_out_are_no_faults(read):
    images, annotations = [image(1), {"id": 2}], [annotation(1, 1)]
    annotations += [annotation(n, 2) for n in range(5)]
    with pytest.raises(InputError, match=r"images\[1\].* \(1 of 1 un"):
        read(images, annotations)
    assert len(read(images, annotations, skip_bad=True)) == 1


def test_id_of_two_photos_is_refused_or_both_are_left_out(read):
    images = [image(1), image(2), image(2, file_name="other.jpg")]
    annotations = [annotation(n, n) for n in (1, 2)]
    with pytest.raises(InputError, match=r"images\[2\]: .*own, found 2 \(1 of"):
        read(images, annotations)
    (only,) = read(images, annotations, skip_bad=True)
    assert only.image_id == 1


@pytest.mark.parametrize("skip_bad", [False, True])
def test_file_without_captions_is_refused(read, skip_bad):
    with pytest.raises(InputError, match=r"json: expected captions, found no"):
        read([image(1)], [], skip_bad=skip_bad)


def test_file_of_bad_rows_alone_is_refused(read):
    with pytest.raises(InputError, match=r"json: expected captions, found no"):
        read([image(1)], [annotation(1, 1, "")], skip_bad=True)


# === Refusals ===


def test_missing_captions_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: expected a captions"):
        read_captions(tmp_path / "gone.json", tmp_path)


def test_missing_image_folder_is_named(read, tmp_path):
    read([image(1)], [annotation(1, 1)])
    with pytest.raises(InputError, match=r"no_images: expected a folder"):
        read_captions(tmp_path / "captions.json", tmp_path / "no_images")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images":\n  oops}', "expected JSON, found a fault: .* line 2"),
        (b"[" * 200_000, "expected JSON, found a fault: .* recursion"),
        (b'{"images": [' + b"9" * 5000 + b"]}", "expected JSON, found a fault"),
        (
            b'{"images": []} x',
            r"JSON like \{'images': \[\]\} and more after it",
        ),
        (b'{"images": {}}', "lists `images` and .*, found a dict as `images`"),
        (b'{"annotations": []}', "found none as `images`"),
        (b'{"images": []}', "found none as `annotations`"),
        (
            b'{"images": [], "annotations": "x"}',
            "found a str as `annotations`",
        ),
        (b"\xff\xd8\xff\xe0 a photo", "UTF-8 or UTF-16, .* begins b'.xff"),
        ("größ".encode("latin-1"), "UTF-8 or UTF-16, found another byte at 2"),
        (b"\x1f\x8bnothing", "it cannot be read: "),
        (gzip.compress(b"a,b\n" * 99, mtime=0)[:-9], "it cannot be read: "),
    ],
)
def test_damaged_file_is_named(read_text, content, message):
    with pytest.raises(InputError, match=r"captions\.json: .*" + message):
        read_text(content)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b" \n\n", "an empty file"),
        (b"3", "text that begins '3'"),
        (b"A cat on a mat.\nA dog.", r"text that begins 'A cat on a mat\.'"),
        (b"name,caption\n1.jpg,a cat\n", "text that begins 'name,caption'"),
        (b"[]", r"JSON like \[\]"),
        (b"[3, 4]", r"JSON like \[3, 4\]"),
        (b"{}", r"JSON like \{\}"),
        (
            b'[{"image_id": 1, "caption": "a cat"}]',
            r"JSON like \[\{'caption': 'a cat', 'image_id': 1\}\]",
        ),
    ],
)
def test_other_content_is_shown_beside_what_was_expected(
    read_text, content, found
):
    expected = r"json: expected captions \(COCO's or .*each photo\), found "
    with pytest.raises(InputError, match=expected + found + r"\.$"):
        read_text(content)


# === Two sides ===


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


@pytest.fixture
def write(tmp_path):
    """Writes `metadata.jsonl`, and a photo for each record, into a folder."""

    def write_records(name, records):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for record in records:
            (folder / record["file_name"]).touch()
        path = folder / "metadata.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        return path, folder

    return write_records


def records(numbers, **fields):
    return [
        {"file_name": f"{n}.jpg", "text": f"c{n}", **fields} for n in numbers
    ]


def names(side):
    return [each.path.name for each in side]


def test_one_file_is_split_by_its_photos(write):
    path, folder = write("photos", records([*range(8), *range(8)]))
    train, val = read_sides(path, folder, val_share=0.25, seed=1)
    assert (len(train), len(val)) == (6, 2)
    assert not {*names(train)} & {*names(val)}
    assert (train, val) == split_images(
        read_captions(path, folder), 0.25, seed=1
    )


def test_splits_of_a_file_are_the_sides(write):
    path, folder = write(
        "photos",
        [
            *records([1, 2], split="train"),
            *records([3], split="val"),
            *records([4], split="test"),
        ],
    )
    train, val = read_sides(path, folder)
    assert (names(train), names(val)) == (["1.jpg", "2.jpg"], ["3.jpg"])
    train, val = read_sides(path, folder, split="test")
    assert (names(train), names(val)) == (["4.jpg"], ["3.jpg"])
    assert read_texts(path) == ["c1", "c2"]
    assert read_texts(path, split="test") == ["c4"]


@pytest.mark.parametrize("split", [None, "dev"])
def test_split_that_the_file_has_not_is_refused(write, split):
    two = [*records([1], split="train"), *records([3], split="val")]
    path, folder = write("photos", two)
    message = rf"jsonl: `split` .* train, val\. Received: split={split}\."
    with pytest.raises(InputError, match=message):
        read_captions(path, folder, split=split)


def test_split_of_a_file_without_splits_is_refused(write):
    path, folder = write("photos", records([1, 2]))
    with pytest.raises(InputError, match=r"are none\. Received: split=train"):
        read_sides(path, folder, split="train")


def test_same_photos_on_both_sides_are_counted_in_a_warning(
    write, tmp_path, caplog
):
    path, folder = write("photos", records([1, 2, 3]))
    other = tmp_path / "val.jsonl"
    other.write_text("\n".join(map(json.dumps, records([2, 3]))))
    link = tmp_path / "link"
    link.symlink_to(folder)
    train, val = read_sides(path, folder, val_captions=other, val_images=link)
    assert (len(train), len(val)) == (3, 2)
    assert "2 of the 2 validation photos are training photos" in caplog.text


def test_other_photos_on_both_sides_give_no_warning(write, caplog):
    val_captions, val_images = write("val", records([1, 2]))
    sides = read_sides(
        *write("train", records([1, 2])),
        val_captions=val_captions,
        val_images=val_images,
    )
    assert [len(side) for side in sides] == [2, 2]
    assert not [x for x in caplog.records if x.levelno >= logging.WARNING]


@pytest.mark.parametrize("given", ["val_captions", "val_images"])
def test_half_of_a_validation_side_is_refused(write, tmp_path, given):
    with pytest.raises(InputError, match="must be given together"):
        read_sides(*write("photos", records([1, 2])), **{given: tmp_path})


# === Texts ===


@pytest.mark.parametrize(
    ("text", "short"),
    [("A dog runs .", "A dog runs"), ("Well...", "Well..."), (".", ".")],
)
def test_final_period_is_dropped_but_no_ellipsis(text, short):
    assert drop_final_period(text) == short
