import json

import pytest


@pytest.fixture
def evaluated(bmt, captioner_folder, tiny_sample, tmp_path):
    """Runs `bmt evaluate` on the sample's validation pictures."""
    out = tmp_path / "scores"

    def run(*options):
        result = bmt(
            *("evaluate", "--captioner", captioner_folder),
            *("--captions", tiny_sample / "captions_val.json"),
            *("--images", tiny_sample / "images" / "val"),
            *("--out", out, *options),
        )
        assert result.code == 0, result
        return result, json.loads((out / "metrics.json").read_text())

    return run


def test_captions_are_kept_as_results_of_coco(
    evaluated, tiny_captioner, sample_photos, tmp_path
):
    evaluated()
    results = json.loads((tmp_path / "scores" / "predictions.json").read_text())
    captions = tiny_captioner.caption([x.path for x in sample_photos[1]])
    assert results == [
        {"image_id": photo.image_id, "caption": caption.text}
        for photo, caption in zip(sample_photos[1], captions, strict=True)
    ]


def test_wording_is_measured(evaluated, tiny_sample):
    _, metrics = evaluated()
    assert {"mean_length", "vocabulary_used", "repeated_words"} <= set(metrics)
    assert "novel" not in metrics
    known = tiny_sample / "captions_train.json"
    _, metrics = evaluated("--train-captions", known)
    assert 0 <= metrics["novel"] <= 1


def test_report_shows_the_photos_and_their_captions(
    evaluated, tiny_captioner, sample_photos, tmp_path
):
    folder = tmp_path / "report"
    result, metrics = evaluated("--report", folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{folder / 'report.html'}: the report" in result.out
    assert f"Scores on {len(sample_photos[1])} images" in page
    assert all(name in page for name in metrics)
    assert "data:image/jpeg;base64," in page
    assert "not true" not in page


def test_report_marks_captions_that_the_facts_refute(
    evaluated, tiny_sample, tmp_path
):
    folder, facts = tmp_path / "report", tiny_sample / "facts_val.json"
    _, metrics = evaluated("--report", folder, "--facts", facts)
    page = (folder / "report.html").read_text(encoding="utf-8")
    # The captioner has learned nothing.
    assert metrics["truth"] < 1
    _, _, wrong = page.partition(">Confident but wrong</h2>")
    note, *cards = wrong.partition("</section>")[0].split("<article>")
    assert "captions that are not true" in note
    assert len(cards) == min(6, round(8 * (1 - metrics["truth"])))
    assert all(", not true</p>" in card for card in cards)


def test_decoding_options_take_the_place_of_the_saved_ones(evaluated):
    _, saved = evaluated()
    _, other = evaluated("--passes", 1, "--length-candidates", 5)
    assert saved["mean_length"] != other["mean_length"]


def test_java_scores_are_left_out_where_java_is_missing(
    evaluated, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("PATH", str(tmp_path))
    _, metrics = evaluated("--java-scores")
    assert not {"meteor", "spice"} & set(metrics)
    assert "METEOR and SPICE are left out" in caplog.text
