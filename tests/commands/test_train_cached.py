"""`bmt train --cached-maskings`: the text tower runs before training, once."""

import json

SMALL = (
    *("--preset", "notebook", "--image-model", "SmallCNN"),
    *("--image-trainable", "--image-height", 16, "--image-width", 16),
    *("--text-weights", "random", "--text-num-layers", 1),
    *("--text-num-heads", 2, "--text-embedding-dim", 8),
    *("--text-hidden-dim", 16, "--text-intermediate-dim", 16),
    *("--sequence-length", 8, "--max-positions", 8, "--batch-size", 4),
    *("--steps-per-epoch", 2, "--epochs", 3, "--val-share", 0.25),
)


def test_preset_notebook_trains_from_cached_maskings(
    bmt, write_captions, tmp_path
):
    out = tmp_path / "run"
    result = bmt(
        *("train", *write_captions(range(1, 9)), *SMALL, "--out", out),
        *("--cached-maskings", 2),
    )
    assert result.code == 0, result
    # Six captions for training, three passes over them, two maskings.
    for masking in (1, 2):
        line = f"Running the text tower (masking {masking} of 2): 6 of 6"
        assert line in result.err
    assert (out / "captioner" / "model.keras").is_file()
    assert "masked_accuracy" in json.loads((out / "metrics.json").read_text())
    kept = (out / "text_states" / "round-0000").glob("*/*.rows")
    assert len(list(kept)) == 2
