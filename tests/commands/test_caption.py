import csv
import json
import os
import re

import pytest
import tensorflow as tf

from bmt_keras.captioner import Calibration
from bmt_keras.models import set_matmul_precision


@pytest.fixture
def folder(captioner_folder):
    return captioner_folder


def test_scores_name_every_word_with_its_probability(
    bmt, folder, tiny_captioner, sample_photos
):
    path = sample_photos[1][0].path
    result = bmt("caption", path, "--captioner", folder, "--scores")
    text, scores = result.out.rstrip("\n").split("\t")
    expected = tiny_captioner.caption(path)
    assert (result.code, text) == (0, expected.text)
    assert tiny_captioner.calibration == Calibration()
    words = re.findall(r"(\S+)=([01]\.\d\d)(?: |$)", scores)
    assert [word for word, _ in words] == text.split()


def test_several_images_have_a_line_each_and_a_grid(
    bmt, folder, sample_photos, tmp_path
):
    paths = [photo.path for photo in sample_photos[1][:3]]
    grid = tmp_path / "grid.png"
    result = bmt("caption", *paths, "--captioner", folder, "--grid", grid)
    lines = result.out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(p) for p in paths]
    assert grid.read_bytes().startswith(b"\x89PNG")
    # The good ones are drawn in any case.
    grid.unlink()
    bad = tmp_path / "absent.jpg"
    result = bmt("caption", bad, *paths, "--captioner", folder, "--grid", grid)
    assert (result.code, result.out.splitlines()) == (1, lines)
    assert grid.read_bytes().startswith(b"\x89PNG")


def test_folder_is_captioned_into_a_file(bmt, folder, tiny_sample, tmp_path):
    images = tiny_sample / "images" / "val"
    out = tmp_path / "captions.csv"
    result = bmt("caption", images, "--captioner", folder, "--out", out)
    assert (result.code, result.out) == (0, f"{out}: 8 captions\n")
    assert len(out.read_text().splitlines()) == 9
    again = bmt("caption", images, "--captioner", folder, "--out", out)
    assert again.code == 2
    assert "expected no such file yet" in again.err


def test_image_that_cannot_be_read_is_named_and_skipped(
    bmt, folder, sample_photos, tmp_path, caplog
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    paths = [sample_photos[1][0].path, broken]
    out = tmp_path / "captions.jsonl"
    result = bmt("caption", *paths, "--captioner", folder, "--out", out)
    assert (result.code, result.out) == (1, f"{out}: 1 captions\n")
    assert f"cannot be read: {broken} (not a decodable image" in caplog.text


def test_bad_images_cost_no_caption_of_the_others(
    bmt, folder, sample_photos, tmp_path, caplog
):
    images = tmp_path / "images"
    images.mkdir()
    os.link(sample_photos[1][0].path, os.fsencode(images) + b"/caf\xe9.jpg")
    for number in range(6):
        (images / f"{number}.jpg").write_bytes(b"no photo")
    options = ("--captioner", folder)
    printed = bmt("caption", images, *options)
    (line,) = printed.out.splitlines()
    assert printed.code == 1
    name, caption = line.split("\t")
    assert json.loads(name) == f"{images}/caf\udce9.jpg"
    # No file lists them: each is named.
    assert "6 of 7 photos cannot be read: " in caplog.text
    assert all(f"{images / str(n)}.jpg: not a" in caplog.text for n in range(6))

    out = tmp_path / "captions.jsonl"
    written = bmt("caption", images, *options, "--out", out)
    assert (written.code, written.out) == (1, f"{out}: 1 captions\n")
    listed = tmp_path / "captions-bad-images.txt"
    assert f"(all in {listed})" in caplog.text
    assert len(listed.read_text().splitlines()) == 6
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    (row,) = (row for row in rows if not row["error"])
    assert row["file"] == f"{images}/caf\udce9.jpg"
    assert row["caption"] == caption


# === Controls ===


def test_controls_reach_the_captioner(
    bmt, folder, tiny_captioner, sample_photos
):
    path = sample_photos[1][0].path
    word = tiny_captioner.tokenizer.vocabulary[-1].replace("\u2581", "")
    result = bmt(
        *("caption", path, "--captioner", folder, "--length", "4-6"),
        *("--keyword", word, "--num-captions", 2, "--temperature", 0.8),
        *("--top-p", 0.9, "--seed", 3, "--passes", 2),
    )
    expected = tiny_captioner.caption(
        path,
        length=(4, 6),
        keywords=[word],
        num_captions=2,
        temperature=0.8,
        top_p=0.9,
        seed=3,
        passes=2,
    )
    assert result.out.splitlines() == [each.text for each in expected]


def test_length_is_kept(bmt, folder, sample_photos):
    paths = [photo.path for photo in sample_photos[1][:3]]
    result = bmt("caption", *paths, "--captioner", folder, "--length", 5)
    captions = [line.split("\t")[1] for line in result.out.splitlines()]
    assert [len(caption.split()) for caption in captions] == [5, 5, 5]


def test_captions_of_an_image_are_named_by_it(bmt, folder, sample_photos):
    paths = [photo.path for photo in sample_photos[1][:2]]
    result = bmt(
        *("caption", *paths, "--captioner", folder),
        *("--num-captions", 2, "--length", "4-6"),
    )
    names = [line.split("\t")[0] for line in result.out.splitlines()]
    assert names == [str(paths[0])] * 2 + [str(paths[1])] * 2


def test_template_is_completed(bmt, folder, tiny_captioner, sample_photos):
    path = sample_photos[1][0].path
    template = "a [MASK] [MASK]"
    result = bmt("caption", path, "--captioner", folder, "--template", template)
    expected = tiny_captioner.fill_mask(path, template)
    assert result.out == f"{expected.text}\n"
    assert result.out.startswith("a ")


def test_length_goes_into_a_file_too(bmt, folder, tiny_sample, tmp_path):
    out = tmp_path / "captions.csv"
    images = tiny_sample / "images" / "val"
    bmt("caption", images, "--captioner", folder, "--out", out, "--length", 4)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert {len(row["caption"].split()) for row in rows} == {4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--length", "few"], "`--length` must be a number of tokens such"),
        (["--length", "99"], "`length` must be a number of tokens"),
        (
            ["--template", "a [MASK]", "--length", "4"],
            "`--length` cannot be given with `--template`",
        ),
        (
            ["--num-captions", 2, "--out", "captions.csv"],
            "`--num-captions` cannot be given with `--out`",
        ),
        (["--num-captions", 2, "--length", "4"], "`num_captions` must be"),
        (["--template", "a dog"], "nothing to fill|expected"),
    ],
)
def test_bad_controls_are_refused(bmt, folder, sample_photos, options, message):
    path = sample_photos[1][0].path
    result = bmt("caption", path, "--captioner", folder, *options)
    assert (result.code, result.out) == (2, "")
    assert re.search(message, result.err)


def test_captions_are_written_in_the_asked_precision(
    bmt, folder, sample_photos
):
    path = sample_photos[1][0].path
    name = "auto_mixed_precision_onednn_bfloat16"
    arguments = ("caption", path, "--captioner", folder, "--matmul-precision")
    try:
        result = bmt(*arguments, "bfloat16")
        options = tf.config.optimizer.get_experimental_options()
        assert (result.code, options[name]) == (0, True)
    finally:
        set_matmul_precision("float32")
    assert result.out.strip()
    wrong = bmt(*arguments, "half")
    assert wrong.code == 2
    # Typer draws a box, in which lines are wrapped.
    assert {"'half'", "'float32',"} <= set(wrong.err.split())
