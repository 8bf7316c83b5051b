import pytest
import tensorflow as tf

from bmt_keras.models import matmul_precision as precision
from bmt_keras.models.matmul_precision import (
    has_bfloat16_units,
    set_matmul_precision,
)

OPTION = "auto_mixed_precision_onednn_bfloat16"


@pytest.fixture(autouse=True)
def _plain_afterwards():
    yield
    set_matmul_precision("float32")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx512f avx512_bf16 sse", True),
        ("flags : fpu amx_bf16", True),
        ("flags : fpu avx512f avx512_bf16x", False),
        ("", False),
    ],
)
def test_units_are_found_by_the_processor_s_flags(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(flags)
    assert has_bfloat16_units(tmp_path / "cpuinfo") is expected


def test_system_without_such_a_list_has_no_units(tmp_path):
    assert not has_bfloat16_units(tmp_path / "gone")


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_precision_is_set_for_the_graph_optimizer(name):
    assert set_matmul_precision(name) == name
    found = tf.config.optimizer.get_experimental_options()[OPTION]
    assert found is (name == "bfloat16")


@pytest.mark.parametrize("has_units", [True, False])
@pytest.mark.parametrize("is_faster", [True, False])
def test_auto_asks_the_processor_and_a_trial(monkeypatch, has_units, is_faster):
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: has_units)
    monkeypatch.setattr(precision, "is_bfloat16_faster", lambda: is_faster)
    expected = "bfloat16" if has_units and is_faster else "float32"
    assert set_matmul_precision("auto") == expected


def is_bfloat16():
    return bool(tf.config.optimizer.get_experimental_options().get(OPTION))


def test_precision_of_a_while_ends_with_it():
    with precision.matmul_precision("bfloat16"):
        assert is_bfloat16()
        with precision.matmul_precision("float32"):
            assert not is_bfloat16()
        assert is_bfloat16()
    assert not is_bfloat16()


@pytest.mark.parametrize("slow", ["float32", "bfloat16"])
def test_trial_compares_the_two_precisions(monkeypatch, slow):
    clock = [0.0]

    def trial():
        clock[0] += 2.0 if is_bfloat16() == (slow == "bfloat16") else 1.0

    monkeypatch.setattr(precision, "_build_trial", lambda: trial)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    assert precision.is_bfloat16_faster() is (slow == "float32")


def test_trial_gives_an_answer_and_leaves_the_precision():
    assert precision.is_bfloat16_faster() in (True, False)
    assert not is_bfloat16()
