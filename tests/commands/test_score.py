import importlib.util
import json
import os
import subprocess
import sys

import pytest

from bmt_keras import evaluation

BY_PEOPLE = {
    1: ["a red dog runs on grass", "a dog is running"],
    2: ["two cats sit on a sofa"],
    3: ["a man rides a wave", "the man is surfing"],
}
WRITTEN = {1: "a dog runs on grass", 2: "a cat sits", 3: "a man is surfing"}
# By hand: two of three runs of three words and one of two runs of four are in
# a reference of the first; none of four words is in those of the others.
BLEU_4 = {1: (2 / 3 / 2) ** (1 / 4), 2: 0, 3: 0}
# Words in common, of the caption's and of the reference's: 5 of 5 and 6, 1 of 3
# and 6, 3 of 4 and 4.
ROUGE_L = {
    key: 2.44 * precision * recall / (recall + 1.44 * precision)
    for key, precision, recall in (
        (1, 1, 5 / 6),
        (2, 1 / 3, 1 / 6),
        (3, 3 / 4, 3 / 4),
    )
}


def write_captions(path, captions):
    """Writes a captions file in COCO's format, without images."""
    texts = [(key, text) for key, found in captions.items() for text in found]
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg"} for k in captions],
        "annotations": [
            {"id": number, "image_id": key, "caption": text}
            for number, (key, text) in enumerate(texts)
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    """Results, and the options that name what they are compared with."""
    results = tmp_path / "results.json"
    rows = [{"image_id": k, "caption": t} for k, t in WRITTEN.items()]
    results.write_text(json.dumps(rows))
    return results, "--captions", write_captions(tmp_path / "c.json", BY_PEOPLE)


def test_scores_are_shown_and_written_with_those_of_each_image(
    bmt, files, tmp_path
):
    out = tmp_path / "new" / "scores.json"
    result = bmt("score", *files, "--out", out)
    assert (result.code, result.err) == (0, "")
    written = json.loads(out.read_text())
    scores = written["scores"]
    expected = evaluation.evaluate_captions(WRITTEN, BY_PEOPLE)
    expected |= evaluation.measure_wording(WRITTEN.values())
    assert scores == pytest.approx({**expected, "num_images": 3}, abs=1e-9)
    assert 1 < scores["cider_d"] < 9
    each = evaluation.score_each_caption(WRITTEN, BY_PEOPLE)
    for row, key in zip(written["images"], BY_PEOPLE, strict=True):
        assert row == {
            "image_id": key,
            "file_name": f"{key}.jpg",
            "cider_d": pytest.approx(each[key], abs=1e-9),
            "bleu_4": pytest.approx(BLEU_4[key], abs=2e-4),
            "rouge_l": pytest.approx(ROUGE_L[key]),
        }
    assert written["document_frequencies"] == str(files[2])
    first, *lines = result.out.splitlines()
    assert first.startswith("CIDEr-D by document frequencies of 3 images (")
    (line,) = [line for line in lines if " cider_d " in line]
    assert f"{scores['cider_d']:.4g}" in line


def test_document_frequencies_come_from_another_set(bmt, files, tmp_path):
    others = {k: [f"a photo of thing {k}"] for k in range(50)} | BY_PEOPLE
    path = write_captions(tmp_path / "others.json", {**others, 77: []})
    out = tmp_path / "scores.json"
    options = ("--document-frequencies", path, "--out", out)
    result = bmt("score", *files, *options)
    assert (result.code, result.err) == (0, "")
    assert f"{len(others)} images" in result.out.splitlines()[0]
    written = json.loads(out.read_text())
    assert written["document_frequencies"] == str(path)
    cider = evaluation.CiderD(BY_PEOPLE, others.values())
    expected = [cider.score(*item) for item in WRITTEN.items()]
    assert [x["cider_d"] for x in written["images"]] == pytest.approx(expected)
    assert written["scores"]["cider_d"] == pytest.approx(sum(expected) / 3)


def test_missing_images_are_left_out_if_asked(bmt, refuse, files):
    path, *options = files
    path.write_text('[{"image_id": 1, "caption": "a dog is running"}]')
    line = refuse("score", path, *options)
    assert "found 2 missing (see --skip-missing), the first 2.jpg (2)" in line
    result = bmt("score", path, *options, "--skip-missing")
    assert (result.code, result.err) == (0, "")
    assert " num_images " in result.out
    # The other images still tell how rare words are.
    assert "document frequencies of 3 images" in result.out


def test_mean_of_spice_and_cider_d_is_named_as_such(
    bmt, files, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        evaluation, "score_with_java", lambda *_: {"spice": 0.25}
    )
    out = tmp_path / "scores.json"
    assert bmt("score", *files, "--java-scores", "--out", out).code == 0
    scores = json.loads(out.read_text())["scores"]
    assert scores["spice"] == 0.25
    mean = (0.25 + scores["cider_d"]) / 2
    assert scores["spider_by_cider_d"] == pytest.approx(mean)


def test_captions_are_compared_as_given_but_for_their_case(bmt, tmp_path):
    captions = write_captions(tmp_path / "c.json", {1: ["un carré"], 2: ["là"]})
    results = tmp_path / "results.csv"
    out = tmp_path / "scores.json"
    results.write_text("image_id,caption\n1,UN CARRÉ.\n2,la\n", "utf-8")
    assert bmt("score", results, "--captions", captions, "--out", out).code == 0
    first, second = json.loads(out.read_text())["images"]
    assert (first["cider_d"], second["cider_d"]) == (pytest.approx(5), 0)


def test_file_that_is_there_is_kept(bmt, files, tmp_path):
    out = tmp_path / "scores.json"
    out.write_text("mine")
    result = bmt("score", *files, "--out", out)
    assert (result.code, result.out) == (2, "")
    assert f"{out}: expected no such file yet, found one" in result.err
    assert out.read_text() == "mine"


def test_set_without_document_frequencies_is_refused(refuse, tmp_path):
    results = tmp_path / "r.csv"
    results.write_text("file,caption\n1.jpg,a dog\n")
    captions = write_captions(tmp_path / "one.json", {1: ["a dog"], 2: []})
    line = refuse("score", results, "--captions", captions)
    assert f"{captions}: expected captions of two images at least" in line
    assert "found 1; give --document-frequencies" in line


def test_missing_files_are_named(refuse, files, tmp_path):
    results, option, captions = files
    gone = tmp_path / "gone.json"
    assert f"{gone}: expected captions" in refuse("score", gone, *files[1:])
    assert f"{gone}: expected a captions file" in refuse(
        "score", results, option, gone
    )
    assert f"{gone}: expected a captions file" in refuse(
        "score", results, option, captions, "--document-frequencies", gone
    )


def test_missing_package_is_named_with_what_installs_it(
    refuse, files, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    assert "`bmt score` needs pycocoevalcap: pip install 'bmt-keras" in refuse(
        "score", *files
    )


def test_scores_need_no_tensorflow(files):
    code = (
        "import sys\nfrom bmt_keras.commands import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print({'keras', 'tensorflow', 'cv2'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "score", *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TERM": "dumb"},
    )
    assert ended.stdout.splitlines()[-1] == "set()"
