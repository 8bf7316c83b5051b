"""Every group of rows, on models that are too small to tell anything."""

import pytest

from bmt_keras.bench import export_cases
from bmt_keras.bench.measure import measure_group, run_alone
from bmt_keras.bench.options import GROUPS, BenchOptions
from bmt_keras.bench.photos import write_photos

TINY = {
    "image_model": "MobileNetV2",
    "image_layer": "",
    "image_pooling": 1,
    "image_height": 32,
    "image_width": 32,
    "num_layers": 1,
    "num_heads": 2,
    "fusion_blocks": 1,
    "fusion_heads": 2,
    "embedding_dim": 8,
    "hidden_dim": 16,
    "intermediate_dim": 16,
    "length_candidates": 2,
}


@pytest.fixture(scope="module")
def make_options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    write_photos(folder, count=8)

    def make(**options):
        return BenchOptions(
            folder / "captions.json",
            folder / "images",
            rounds=1,
            steps=1,
            overrides=TINY,
            **options,
        )

    return make


def write_small_export(captioner, base):
    """An export takes a process of its own to be checked; see its tests."""
    base.mkdir()
    (base / "weights").write_bytes(bytes(1000))
    return base


@pytest.mark.parametrize(
    ("group", "match", "expected"),
    [
        ("training", "", 12),
        ("pipeline", "live", 1),
        ("captioning", "small, 2 passes", 2),
        ("preparation", "notebook", 2),
        ("export", "small", 1),
        ("growth", "batches", 3),
        ("accelerator", "small, step, batch 8,", 3),
        ("accelerator", "small, 4 passes, batch 8,", 2),
        ("accelerator", "small, text forward, batch 8,", 3),
    ],
)
def test_group_is_measured(make_options, group, match, expected, monkeypatch):
    monkeypatch.setattr(export_cases, "export_captioner", write_small_export)
    measured = measure_group(group, make_options(match=match))
    assert len(measured.figures) == expected
    for figures in measured.figures:
        assert match in figures.name
        assert figures.seconds > 0
        assert (figures.ratio is None) == (figures.reference == "")
    assert all(rate > 0 for rate in measured.rates.values())


def test_captioning_stands_beside_an_encoding_and_its_passes(make_options):
    options = make_options(match="small, 2 passes, batch 1")
    (figures,) = measure_group("captioning", options).figures
    assert figures.reference == (
        "small, photo encoding, batch 1 + 2 x small, text forward, batch 1"
    )
    assert not figures.is_speed
    assert figures.wanted == 1.15


def test_case_runs_alone(make_options):
    options = make_options(memory_photos=(20,))
    figures = run_alone("preparation", "preparing 20 photos", options)
    assert figures.name == "preparing 20 photos"
    assert figures.seconds > 0


def test_all_groups_are_tried():
    marks = test_group_is_measured.pytestmark
    tried = {group for group, *_ in marks[0].args[1]}
    assert tried == {*GROUPS, "accelerator"}
