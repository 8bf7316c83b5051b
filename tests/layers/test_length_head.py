import numpy as np
import pytest

from bmt_keras.layers import LengthHead, tanh_gelu

RNG = np.random.default_rng(6)
GRID = RNG.normal(size=(2, 2, 3, 5)).astype("float32")


@pytest.mark.parametrize("image", [GRID, GRID[:, 0], GRID[:, 0, 0]])
def test_logits_are_projected_from_the_mean_of_the_cells(image):
    head = LengthHead(max_caption_tokens=9, hidden_dim=7)
    head.build(image.shape)
    cells = image - image.mean(-1, keepdims=True)
    cells = cells / np.sqrt((cells**2).mean(-1, keepdims=True) + 1e-3)
    cells = np.array(tanh_gelu(cells @ head.dense.kernel.numpy()))
    features = cells.reshape(2, -1, 7).mean(1)
    expected = features @ head.logits.kernel.numpy()
    np.testing.assert_allclose(head(image), expected, atol=1e-5)
