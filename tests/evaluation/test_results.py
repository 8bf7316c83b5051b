"""Files of captions that others wrote."""

import json

import pytest

from bmt_keras.errors import InputError
from bmt_keras.evaluation import read_results

IMAGES = [
    (7, "val/dog.jpg", ["a dog"]),
    (0, "cat.png", ["a cat", "two cats"]),
    (12, "a/1.jpg", ["one"]),
    (13, "b/1.jpg", ["other"]),
    (99, "unseen.jpg", []),  # nobody said what is on it
]
CAPTIONS = {7: "dogs, two", 0: 'a "cat"', 12: "", 13: "été\u2028là"}


@pytest.fixture
def write(tmp_path):
    """Writes rows into a file of results, by the file's ending."""

    def write(name, rows):
        path = tmp_path / name
        if not isinstance(rows, str):
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            rows = "\n".join(lines)
            if name.endswith(".json"):
                rows = f"[{','.join(lines)}]"
        path.write_text(rows, encoding="utf-8")
        return path

    return write


def by_id(**more):
    return [{"image_id": k, "caption": t, **more} for k, t in CAPTIONS.items()]


@pytest.mark.parametrize("name", ["r.json", "r.jsonl"])
def test_captions_are_read_by_id(write, name):
    assert read_results(write(name, by_id(id=1)), IMAGES) == CAPTIONS
    # A file name beside the id has no say.
    assert read_results(write(name, by_id(file="x")), IMAGES) == CAPTIONS


@pytest.mark.parametrize("column", ["file", "file_name"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_captions_are_read_from_a_table_by_file(write, column, end):
    rows = [
        f"score,{column},caption,error",
        '0.5,/photos/val/dog.jpg,"dogs, two",',
        '0.5,./cat.png,"a ""cat""",',
        "0.5,a/1.jpg,,",
        "0.5,x/b/1.jpg,été\u2028là,",
    ]
    path = write("r.csv", "\ufeff" + end.join(rows) + end)
    assert read_results(path, IMAGES) == CAPTIONS


def test_captions_are_read_from_a_table_by_id(write):
    path = write("r.csv", "image_id,caption\n7,a\n0,b\n12,c\n13,d\n")
    assert read_results(path, IMAGES) == {7: "a", 0: "b", 12: "c", 13: "d"}


def test_file_name_fits_with_fewer_folders_and_never_others(write):
    rows = [{"file": "dog.jpg", "caption": "a"}]
    path = write("r.jsonl", rows)
    assert read_results(path, IMAGES, skip_missing=True) == {7: "a"}
    for file in ("train/dog.jpg", "og.jpg", "dog.png"):
        path = write("r.jsonl", [{"file": file, "caption": "a"}])
        with pytest.raises(InputError, match="found 1 that fit none"):
            read_results(path, IMAGES, skip_missing=True)


def test_missing_images_are_left_out_if_asked(write):
    rows = [*by_id()[:2], {"image_id": 12, "caption": "", "error": "broken"}]
    path = write("r.json", rows)
    assert list(read_results(path, IMAGES, skip_missing=True)) == [7, 0]
    message = (
        r"each of 4 images .* found 2 missing .*, the first a/1.jpg \(12\)"
    )
    with pytest.raises(InputError, match=message):
        read_results(path, IMAGES)
    with pytest.raises(InputError, match="found 4 missing"):
        read_results(write("r.json", rows[2:]), IMAGES, skip_missing=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_id": 5}, "found 2 that fit none or several .* first 5"),
        ({"image_id": 99}, "found 2 that fit none or several .* first 99"),
        ({"image_id": True}, "found 2 that fit none or several .* first True"),
        ({"file": "1.jpg"}, "found 2 that fit none or several .* first 1.jpg"),
        ({"file": "12"}, "found 2 that fit none or several .* first 12"),
        ({"image_id": "7"}, "found 2 further ones of an image, the first 7"),
        ({"file": "dog.jpg"}, "found 2 further ones of .*, the first dog.jpg"),
    ],
)
def test_images_that_do_not_fit_are_counted_and_named(write, row, message):
    path = write("r.jsonl", [*by_id(), *[{"caption": "x", **row}] * 2])
    with pytest.raises(InputError, match=message):
        read_results(path, IMAGES, skip_missing=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", '{"images": []}', "entry 1: expected a `caption` "),
        ("r.json", "3", "entry 1: expected a `caption` .* found 3"),
        ("r.json", '[{"image_id": 7}]', "entry 1: .*found {'image_id': 7}"),
        ("r.json", '[{"caption": "a"}]', "entry 1: .*found {'caption': 'a'}"),
        ("r.json", '[{"caption": 3, "image_id": 7}]', "entry 1: expected a"),
        ("r.json", "[1, ", "found a fault: Expecting value: line 1"),
        ("r.jsonl", '{"image_id": 7, "caption": "a"}\n{', "fault: .* line 2"),
        ("r.csv", "id,text\n7,a", "entry 1: .*found {'id': '7', 'text': 'a'}"),
        ("r.csv", "image_id,caption\n7,a, b", "in quotes if it has a comma"),
        ("r.csv", "image_id,caption\n7", "entry 1: expected a `caption`"),
        ("r.csv", "image_id,caption\n,b", "entry 1: expected a `caption`"),
        ("r.txt", "a dog", r"expected captions \(.json, .jsonl or .csv\)"),
        ("r.csv", "", "found 4 missing"),
        ("r.jsonl", "", "found 4 missing"),
    ],
)
def test_malformed_file_is_refused(write, name, content, message):
    path = write(name, content)
    with pytest.raises(InputError, match=message) as error:
        read_results(path, IMAGES)
    assert str(path) in str(error.value)


def test_file_that_is_no_text_or_not_there_is_refused(tmp_path):
    path = tmp_path / "r.csv"
    with pytest.raises(InputError, match=r"found a fault: .*No such file"):
        read_results(path, IMAGES)
    path.write_bytes(b"image_id,caption\n7,\xff\n")
    with pytest.raises(InputError, match=r"r.csv: .*found a fault: 'utf-8'"):
        read_results(path, IMAGES)


def test_json_that_is_nested_too_deep_is_refused(write):
    path = write("r.json", "[" * 100_000)
    with pytest.raises(InputError, match=r"found a fault: maximum recursion"):
        read_results(path, IMAGES)


def test_long_name_does_not_fill_a_message(write):
    path = write("r.jsonl", [{"file": "x" * 100_000, "caption": "a"}])
    with pytest.raises(InputError, match="found 1 that fit none") as error:
        read_results(path, IMAGES)
    assert len(str(error.value)) < 1_000
