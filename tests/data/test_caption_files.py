import csv
import json

import pytest

from bmt_keras.data.caption_files import Journal, check_out
from bmt_keras.errors import InputError

SOURCE = {"captioner": "/runs/a", "passes": None, "length": (6, None)}


def row(name, caption="a dog", error=""):
    return {"file": name, "caption": caption, "score": -1.5, "error": error}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "deep" / "captions.jsonl"


# === Whose rows they are ===


def test_same_source_goes_on(out):
    first = Journal(out, SOURCE)
    assert not first.path.exists()
    first.append([row("1.jpg"), row("2.jpg", "", "broken")])
    again = Journal(out, SOURCE)
    assert list(again.rows) == ["1.jpg", "2.jpg"]
    again.append([row("3.jpg", "ein Hund läuft")])
    rows = again.finish(out, ["3.jpg", "1.jpg"])
    assert [each["file"] for each in rows] == ["3.jpg", "1.jpg"]
    assert [json.loads(x) for x in out.read_text().splitlines()] == rows
    assert list(out.parent.iterdir()) == [out]


def test_name_that_is_no_utf8_reads_back_equal(tmp_path):
    name = "photos/caf\udce9.jpg"  # as the system gives the byte \xe9
    for ending in ("jsonl", "csv"):
        out = tmp_path / f"captions.{ending}"
        Journal(out, SOURCE).append([row(name, "un café")])
        journal = Journal(out, SOURCE)
        assert list(journal.rows) == [name]
        journal.finish(out, [name])
        assert "caf\\udce9.jpg" in out.read_text(encoding="utf-8")
    line = (tmp_path / "captions.jsonl").read_text(encoding="utf-8")
    assert json.loads(line)["file"] == name
    assert "un café" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"captioner": "/runs/b"},
            "whose `captioner` was '/runs/a', not '/runs/b'",
        ),
        ({"passes": 3}, "whose `passes` was None, not 3"),
        ({"length": (6, 9)}, r"whose `length` was \[6, None\], not \[6, 9\]"),
        ({"order": "confidence"}, "whose `order` was None, not 'confidence'"),
    ],
)
def test_other_source_is_refused(out, change, message):
    journal = Journal(out, SOURCE)
    journal.append([row("1.jpg")])
    before = journal.path.read_bytes()
    with pytest.raises(InputError, match=message) as refused:
        Journal(out, {**SOURCE, **change})
    assert "delete the file to begin anew, or give an" in str(refused.value)
    assert str(refused.value).startswith(str(journal.path))
    assert journal.path.read_bytes() == before


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_line_that_is_half_written_is_cut_off(out, lines):
    journal = Journal(out, SOURCE)
    journal.append([row("1.jpg"), row("ü.jpg")])
    whole = journal.path.read_bytes().splitlines(keepends=True)
    left = b"".join(whole[:lines])
    journal.path.write_bytes(left + whole[lines][:12])
    again = Journal(out, SOURCE)
    assert again.path.read_bytes() == left
    assert len(again.rows) == max(lines - 1, 0)
    again.append([row("3.jpg")])
    assert "3.jpg" in Journal(out, SOURCE).rows


@pytest.mark.parametrize("content", ["[1]\n", "no JSON\n", "{}\n[]\n"])
def test_something_else_is_refused(out, content):
    path = Journal(out, SOURCE).path
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(InputError, match=r"found something else .*; delete it"):
        Journal(out, {})


# === Formats ===


def test_table_and_results_of_coco(tmp_path):
    for name in ("captions.csv", "captions.json"):
        journal = Journal(tmp_path / name, SOURCE)
        journal.append([row("a/007.jpg"), row("8.jpg", "", "broken")])
        journal.finish(tmp_path / name, list(journal.rows))
    with (tmp_path / "captions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [each["error"] for each in table] == ["", "broken"]
    assert json.loads((tmp_path / "captions.json").read_text()) == [
        {"image_id": 7, "caption": "a dog"}
    ]


def test_earlier_file_is_not_overwritten(out):
    out.parent.mkdir()
    out.write_text("mine")
    with pytest.raises(InputError, match="expected no such file yet"):
        check_out(out, [])
