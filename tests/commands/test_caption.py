import re

import pytest


@pytest.fixture
def folder(tiny_captioner, tmp_path):
    tiny_captioner.save(tmp_path / "captioner")
    return tmp_path / "captioner"


def test_scores_name_every_word_with_its_probability(
    bmt, folder, tiny_captioner, sample_photos
):
    path = sample_photos[1][0].path
    result = bmt("caption", path, "--captioner", folder, "--scores")
    text, scores = result.out.rstrip("\n").split("\t")
    (expected,) = tiny_captioner.caption([path])
    assert (result.code, text) == (0, expected.text)
    words = re.findall(r"(\S+)=([01]\.\d\d)(?: |$)", scores)
    assert [word for word, _ in words] == text.split()


def test_several_photos_have_a_line_each_and_a_grid(
    bmt, folder, sample_photos, tmp_path
):
    paths = [photo.path for photo in sample_photos[1][:3]]
    grid = tmp_path / "grid.png"
    result = bmt("caption", *paths, "--captioner", folder, "--grid", grid)
    lines = result.out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(p) for p in paths]
    assert grid.read_bytes().startswith(b"\x89PNG")


def test_folder_is_captioned_into_a_file(bmt, folder, tiny_sample, tmp_path):
    photos = tiny_sample / "images" / "val"
    out = tmp_path / "captions.csv"
    result = bmt("caption", photos, "--captioner", folder, "--out", out)
    assert (result.code, result.out) == (0, f"{out}: 8 captions\n")
    assert len(out.read_text().splitlines()) == 9
    again = bmt("caption", photos, "--captioner", folder, "--out", out)
    assert again.code == 2
    assert "expected no such file yet" in again.err


def test_photo_that_cannot_be_read_is_told_and_skipped(
    bmt, folder, sample_photos, tmp_path
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    paths = [sample_photos[1][0].path, broken]
    out = tmp_path / "captions.jsonl"
    result = bmt("caption", *paths, "--captioner", folder, "--out", out)
    assert (result.code, result.out) == (0, f"{out}: 1 captions\n")
    assert f"cannot be read: {broken} (not a decodable image" in result.err
