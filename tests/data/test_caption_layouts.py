"""Captions in the layouts that are not COCO's."""

import csv
import gzip
import io
import json
import tarfile

import pytest

from bmt_keras.data.captions import CaptionedImage, read_captions, read_texts
from bmt_keras.errors import InputError


@pytest.fixture
def read(tmp_path):
    """Reads a file of the given content; its photos lie in `photos/`."""
    folder = tmp_path / "photos"

    def read_content(content, photos=("1.jpg", "2.jpg"), **options):
        for name in photos:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        # The name says nothing of the layout.
        path = tmp_path / "captions"
        if not isinstance(content, bytes):
            content = content.encode()
        path.write_bytes(content)
        return [
            (each.path.relative_to(folder).as_posix(), *each.captions)
            for each in read_captions(path, folder, **options)
        ]

    return read_content


TWO = [("1.jpg", "a cat, a dog", "two"), ("2.jpg", "three")]

# === Karpathy's splits ===


def karpathy(split, name="1.jpg", *raw, **changes):
    sentences = [{"raw": each, "tokens": ["?"]} for each in raw or ["a cat"]]
    fields = {"filename": name, "split": split, "sentences": sentences}
    return {**fields, **changes}


def dataset(*images):
    return json.dumps({"images": images, "dataset": "coco"})


def test_karpathys_file_has_ids_folders_and_all_sentences(tmp_path):
    path = tmp_path / "dataset_coco.json"
    path.write_text(
        dataset(
            karpathy("test", "9.jpg", "a", "b", filepath="val", cocoid=9),
            karpathy("test", "7.jpg", "c", filepath="val", cocoid=7, imgid=0),
        )
    )
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "9.jpg").touch()
    assert read_captions(path, tmp_path, split="test") == [
        CaptionedImage(9, tmp_path / "val" / "9.jpg", ("a", "b")),
        CaptionedImage(7, tmp_path / "val" / "7.jpg", ("c",)),
    ]


def test_restval_belongs_to_train(read):
    content = dataset(
        karpathy("train", "1.jpg"),
        karpathy("restval", "2.jpg"),
        karpathy("val", "3.jpg"),
    )
    train = read(content, split="train")
    assert train == [("1.jpg", "a cat"), ("2.jpg", "a cat")]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (3, r"images\[1\]: .* `file_name`, found None"),
        (karpathy("val", None), r"images\[1\]: .* `filename`, found None"),
        (karpathy("val", sentences=None), r"`sentences`, found None"),
        (karpathy("val", sentences=[{}]), r"images\[1\]: .* found None"),
        (karpathy("val", "1.jpg", ""), r"images\[1\]: .* found ''"),
    ],
)
def test_bad_image_of_karpathys_is_named_or_left_out(read, image, message):
    content = dataset(karpathy("val"), image)
    with pytest.raises(InputError, match=message):
        read(content, split="val")
    good = read(content, split="val", skip_bad=True)
    assert good == [("1.jpg", "a cat")]


# === Hugging Face's imagefolder and other records ===

RECORDS = [
    {"file_name": "1.jpg", "text": "a cat, a dog"},
    {"file_name": "2.jpg", "text": "three"},
    {"file_name": "1.jpg", "text": "two"},
]


def lines(records):
    return "".join(f"{json.dumps(each)}\n" for each in records)


def renamed(**names):
    return [{names.get(k, k): v for k, v in x.items()} for x in RECORDS]


def table(records, **options):
    file = io.StringIO()
    writer = csv.DictWriter(file, [*records[0]], **options)
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        lines(RECORDS),
        lines(renamed(text="caption")),
        f"\n{lines(RECORDS)}\n\n".replace("\n", "\r\n"),
        lines(
            [
                {"file_name": "1.jpg", "caption": ["a cat, a dog", "two"]},
                {"file_name": "2.jpg", "caption": "three"},
            ]
        ),
        json.dumps(RECORDS),
        json.dumps(renamed(file_name="image", text="caption"), indent=1),
        table(RECORDS),
        table(renamed(text="caption")),
        table(RECORDS, quoting=csv.QUOTE_ALL),
        table(RECORDS, delimiter="\t"),
        table(RECORDS, delimiter=";", lineterminator="\n"),
        table([{"": n, **x, "more": "x"} for n, x in enumerate(RECORDS)]),
        table(renamed(file_name="File_Name")),
        gzip.compress(table(RECORDS).encode("utf-16"), mtime=0),
    ],
)
def test_records_of_a_name_and_a_caption_are_read(read, content):
    assert read(content) == TWO


def test_one_line_of_json_is_a_record(read):
    assert read(lines(RECORDS[1:2])) == [("2.jpg", "three")]


def test_records_keep_whole_numbers_as_ids(tmp_path):
    path = tmp_path / "captions"
    (tmp_path / "1.jpg").touch()
    for ids, kept in (((7, "9"), [7, 9]), ((7, 7), [0, 1]), ((7, "x"), [0, 1])):
        records = zip(RECORDS, ids, strict=False)
        path.write_text(lines({**x, "image_id": n} for x, n in records))
        images = read_captions(path, tmp_path)
        assert [each.image_id for each in images] == kept


def test_caption_with_line_breaks_is_one_cell(read):
    content = 'file_name,text\n1.jpg,"a cat\non a mat"\n2.jpg,two\n'
    assert read(content) == [("1.jpg", "a cat\non a mat"), ("2.jpg", "two")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[3]", r"line 2: .* `file_name`, found None"),
        ('{"file_name": "2.jpg"}', r"line 2: .* `caption`, found None"),
        ('{"file_name": ', r"line 2: .* an object of JSON, found '\{\"file"),
        ("[" * 200_000, r"line 2: expected an object of JSON, found '\[\[\["),
    ],
)
def test_bad_line_is_named_or_left_out(read, row, message):
    content = f"{lines(RECORDS[:1])}{row}\n"
    with pytest.raises(InputError, match=message):
        read(content)
    assert read(content, skip_bad=True) == [("1.jpg", "a cat, a dog")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2.jpg", r"row 3: expected 3 columns, found \['2\.jpg'\]"),
        ("2.jpg,", r"row 3: expected 3 columns, found \['2"),
        ("2.jpg,,x", r"row 3: expected text in `text`, found ''"),
        (",a dog,x", r"row 3: expected text in `file_name`, found ''"),
        ("2.jpg,a,b,x", r"row 3: expected 3 columns, found \['2"),
    ],
)
def test_bad_row_of_a_table_is_named_or_left_out(read, row, message):
    content = f"file_name,text,more\n1.jpg,one,x\n\n{row}\n".replace(
        "\n\n", "\n"
    )
    with pytest.raises(InputError, match=message):
        read(content)
    assert read(content, skip_bad=True) == [("1.jpg", "one")]


def test_metadata_of_a_folder_is_found(tmp_path):
    (tmp_path / "1.jpg").touch()
    (tmp_path / "metadata.csv").write_text(table(RECORDS))
    assert read_texts(tmp_path) == ["a cat, a dog", "two", "three"]
    (tmp_path / "metadata.jsonl").write_text(lines(RECORDS[1:]))
    assert read_texts(tmp_path) == ["three", "two"]


# === Kaggle's captions.txt ===


def test_commas_and_quotes_of_kaggles_captions_may_be_unquoted(read):
    content = (
        "image,caption\n"
        "1.jpg,A dog , black and white , runs .\n"
        '1.jpg,"A cat , asleep"\n'
        '1.jpg," A boy in a shirt\n'
        '2.jpg,"Stop" says a sign , red\n'
        '2.jpg,A "big" dog\n'
    )
    assert read(content) == [
        (
            "1.jpg",
            "A dog , black and white , runs .",
            "A cat , asleep",
            '" A boy in a shirt',
        ),
        ("2.jpg", '"Stop" says a sign , red', 'A "big" dog'),
    ]


# === Flickr's own files ===


def test_token_file_is_read(read):
    content = (
        "1.jpg#0\tA dog , black .\n"
        "2.jpg.1#0\tIts # is 3\tor 4\n"
        "1.jpg#1\tTwo dogs .\r\n"
    )
    assert read(content) == [
        ("1.jpg", "A dog , black .", "Two dogs ."),
        ("2.jpg.1", "Its # is 3\tor 4"),
    ]


def test_results_file_is_read(read):
    content = (
        "image_name| comment_number| comment\n"
        "1.jpg| 0| Two dogs , one | black .\n"
        "1.jpg| 1| 3 cats\n"
        "2.jpg| 4   A dog runs across the grass .\n"
    )
    assert read(content) == [
        ("1.jpg", "Two dogs , one | black .", "3 cats"),
        ("2.jpg", "A dog runs across the grass ."),
    ]


@pytest.mark.parametrize("bad", ["2.jpg#0", "2.jpg#0\t", "2.jpg#0 a dog"])
def test_bad_line_of_flickrs_is_named_or_left_out(read, bad):
    content = f"1.jpg#0\ta cat\n{bad}\n"
    with pytest.raises(InputError, match=r"line 2: .* a caption, found '2"):
        read(content)
    assert read(content, skip_bad=True) == [("1.jpg", "a cat")]


# === Texts beside photos ===


def test_text_beside_a_photo_has_its_captions(tmp_path, caplog):
    (tmp_path / "b").mkdir()
    for name in ("2.JPG", "b/1.png", "3.jpg", "README.txt"):
        (tmp_path / name).touch()
    (tmp_path / "2.txt").write_text("a cat\n\n a dog \n", encoding="utf-16")
    (tmp_path / "b" / "1.txt").write_text("a bird")
    assert read_captions(tmp_path, tmp_path) == [
        CaptionedImage(0, tmp_path / "2.JPG", ("a cat", "a dog")),
        CaptionedImage(2, tmp_path / "b" / "1.png", ("a bird",)),
    ]
    assert "1 photos have no caption" in caplog.text


def test_empty_text_is_named_or_left_out(tmp_path):
    for name in ("1.jpg", "2.jpg", "2.txt"):
        (tmp_path / name).touch()
    (tmp_path / "1.txt").write_text("a cat")
    with pytest.raises(InputError, match=r"2\.txt: expected text .* found ''"):
        read_captions(tmp_path, tmp_path)
    assert len(read_captions(tmp_path, tmp_path, skip_bad=True)) == 1


def test_folder_without_texts_is_no_captions(tmp_path):
    (tmp_path / "1.jpg").touch()
    (tmp_path / "README.txt").touch()
    with pytest.raises(InputError, match=r"a folder of 1 photos, none of"):
        read_captions(tmp_path, tmp_path)


# === A WebDataset's tar ===


def pack(files, mode="w", **fields):
    """Gives a tar of files; `fields` are those of each member."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


SHARD = {
    "2.jpg": b"a photo",
    "2.json": json.dumps({"caption": "three", "key": "2"}).encode(),
    "./1.jpg": b"another",
    "./1.json": b"the text has its place",
    "./1.txt": "a cat, a dog\n\ntwo\n".encode("utf-16"),
    "1.cls": b"7",
    "note.txt": b"of no photo",
}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_texts_of_a_tar_are_read(read, mode):
    files = {k: v for k, v in SHARD.items() if k != "./1.json"}
    assert read(pack(files, mode)) == TWO[::-1]


def test_texts_of_a_tar_need_no_photo(tmp_path):
    path = tmp_path / "0001.tar"
    path.write_bytes(pack({"0/1.JPG": b"", "0/1.txt": b"one"}))
    assert read_texts(path) == ["one"]
    with pytest.raises(InputError, match=r"unpack them by `tar -xf .*1\.tar"):
        read_captions(path, tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"2.json": b"{"}, r"2\.json: expected text, or an .* found b'\{'"),
        ({"2.json": b"[3]"}, r"2\.json: .* an object of JSON, found b'\[3"),
        ({"2.json": b"[" * 200_000}, r"2\.json: .* of JSON, found b'\[\["),
        ({"2.json": b'{"a": 3}'}, r"2\.jpg: expected text in `caption`"),
        ({"2.json": b'{"text": 3}'}, r"2\.jpg: expected text in `text`.* 3"),
        ({"2.txt": b"\xff"}, r"2\.txt: expected text, .* found b'\\xff'"),
        ({"2.txt": b" \n"}, r"2\.jpg: expected text in `captions`, found ''"),
    ],
)
def test_bad_text_of_a_tar_is_named_or_left_out(read, files, message):
    good = {"1.jpg": b"", "1.txt": b"a cat", "2.jpg": b""}
    with pytest.raises(InputError, match=message):
        read(pack({**good, **files}))
    assert read(pack({**good, **files}), skip_bad=True) == [("1.jpg", "a cat")]


def spoil(content, offset):
    return content[:offset] + b"\xff" * 9 + content[offset + 9 :]


LONG = pack({"1.jpg": b"x" * 2000, "1.txt": b"a", "2.jpg": b"", "2.txt": b"b"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LONG[:1000], "unexpected end of data"),
        (LONG[:2600], "a broken header at 2560"),
        # Where `tarfile` alone sees the end.
        (spoil(LONG, 3584 + 150), "a broken header at 3584"),
        (pack({"1.txt": b"a"}, pax_headers={"size": "-512"}), "-512 bytes"),
        (gzip.compress(LONG, mtime=0)[:40], "it cannot be read"),
    ],
)
def test_broken_tar_is_refused(read, content, message):
    with pytest.raises(InputError, match=message):
        read(content, skip_bad=True)


def test_tar_without_texts_is_refused(read):
    with pytest.raises(InputError, match="expected captions, found none"):
        read(pack({"1.jpg": b"a photo", "1.cls": b"7"}))


# === Messages ===


@pytest.mark.parametrize(
    "content",
    [
        table([{"file_name": "x" * 100_000, "text": "a"}]),
        dataset(karpathy("x" * 100_000), karpathy("train", "2.jpg")),
        pack({f"{'x' * 100_000}.jpg": b"", f"{'x' * 100_000}.txt": b"\xff"}),
    ],
)
def test_long_names_do_not_fill_a_message(read, content):
    with pytest.raises(InputError, match=r"captions: |captions is") as error:
        read(content)
    assert len(str(error.value)) < 1_000
