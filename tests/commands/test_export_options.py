import pytest


@pytest.fixture
def exported(tiny_captioner, tmp_path, monkeypatch):
    """Takes the place of the export, which other tests run; keeps its call."""
    calls = []

    def keep(captioner, base, **options):
        calls.append(options)
        return base / "1"

    monkeypatch.setattr("bmt_keras.export.export_captioner", keep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    tiny_captioner.save_to_preset(tmp_path / "captioner")
    return calls


def test_export_takes_figures_from_beside_the_captioner(
    bmt, exported, tmp_path
):
    given = ("export", "--captioner", tmp_path / "captioner", "--out", tmp_path)
    assert bmt(*given).code == 0
    (tmp_path / "metrics.json").write_text('{"cider_d": 0.5}')
    assert bmt(*given, "--no-text-inputs", "--version", 3).code == 0
    other = tmp_path / "other.json"
    other.write_text('{"truth": 1}')
    assert bmt(*given, "--metrics", other).code == 0
    assert exported == [
        {"version": None, "text_inputs": True, "metrics": None},
        {"version": 3, "text_inputs": False, "metrics": {"cider_d": 0.5}},
        {"version": None, "text_inputs": True, "metrics": {"truth": 1}},
    ]


def test_figures_that_are_not_there_are_refused(bmt, exported, tmp_path):
    result = bmt(
        *("export", "--captioner", tmp_path / "captioner"),
        *("--metrics", tmp_path / "none.json"),
    )
    assert (result.code, exported) == (2, [])
    assert "none.json: expected figures" in result.err
