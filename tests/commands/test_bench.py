"""`bmt bench` on a model that is too small to tell anything."""

import json


def test_rows_are_printed_and_written_with_the_machine(bmt, tmp_path):
    out = tmp_path / "results.json"
    result = bmt(
        *("bench", "--rows", "preparation", "--match", "notebook"),
        *("--rounds", 1, "--steps", 1, "--limit", 4, "--memory-photos", 20),
        *("--image-model", "MobileNetV2", "--out", out),
        *("--image-height", 32, "--image-width", 32),
    )
    assert result.code == 0, result
    assert "notebook, preparing" in result.out
    results = json.loads(out.read_text())
    assert results["cores"] > 0
    assert results["settings"]["image_model"] == "MobileNetV2"
    *measured, many = results["rows"]
    for row in measured:
        assert row["ratio"] > 0
        assert row["peak_bytes"] > 1e8
    assert many["name"] == "preparing 20 photos"
    assert many["peak_bytes"] > 1e8


def test_unknown_rows_are_refused(refuse, tmp_path):
    line = refuse("bench", "--rows", "speed", "--out", tmp_path / "r.json")
    assert "`--rows`" in line
    assert "speed" in line


def test_captions_without_images_are_refused(refuse, tmp_path):
    line = refuse(
        *("bench", "--captions", tmp_path / "captions.json"),
        *("--out", tmp_path / "r.json"),
    )
    assert "`--images`" in line
