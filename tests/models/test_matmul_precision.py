import pytest
import tensorflow as tf

from bmt_keras.models.matmul_precision import (
    matmul_precision,
    set_matmul_precision,
)

# A private name of TensorFlow's would be taken without an error.
OPTION = "auto_mixed_precision_onednn_bfloat16"


@pytest.fixture(autouse=True)
def _plain_afterwards():
    yield
    set_matmul_precision("float32")


def is_bfloat16():
    return tf.config.optimizer.get_experimental_options().get(OPTION, False)


def test_precision_is_set_for_the_graph_optimizer():
    for name in ("bfloat16", "float32"):
        set_matmul_precision(name)
        assert is_bfloat16() is (name == "bfloat16")


def test_precision_of_a_while_ends_with_it():
    with matmul_precision("bfloat16"):
        assert is_bfloat16()
        with matmul_precision("float32"):
            assert not is_bfloat16()
        assert is_bfloat16()
    assert not is_bfloat16()
