import dataclasses
import re

TEXTS = [
    f"a {word} dog runs" for word in ["red", "blue", "big", "small", "old"]
]


def test_command_writes_what_training_starts_from(
    bmt, tiny_settings, tiny_sample, tmp_path
):
    text = tmp_path / "captions.txt"
    text.write_text("\n".join(TEXTS * 4))
    small = ("hidden_dim", "embedding_dim", "intermediate_dim", "num_heads")
    fields = dataclasses.asdict(tiny_settings)
    options = [
        *("--preset", "sample", "--epochs", 1),
        *(f"--{name.replace('_', '-')}={fields[name]}" for name in small),
    ]
    out = tmp_path / "text"
    result = bmt(
        *("pretrain", "--text", text, "--out", out, *options),
        *("--matmul-precision", "auto"),
    )
    assert result.code == 0, result
    assert re.search("Products of matrices in (float32|bfloat16) ", result.out)
    result = bmt(
        *("train", "--start", out / "captioner", "--out", tmp_path / "run"),
        *("--captions", tiny_sample / "captions_train.json"),
        *("--images", tiny_sample / "images" / "train", *options),
    )
    assert result.code == 0, result
    result = bmt(
        *("train", "--start", out / "captioner", "--out", tmp_path / "other"),
        *("--captions", tiny_sample / "captions_train.json"),
        *("--images", tiny_sample / "images" / "train"),
    )
    assert result.code == 2
    assert "The captioner to start from is of another shape" in result.err


def test_pretraining_needs_a_fusion_that_photos_may_be_absent_from(
    bmt, tmp_path
):
    text = tmp_path / "captions.txt"
    text.write_text("\n".join(TEXTS))
    result = bmt(
        *("pretrain", "--text", text, "--out", tmp_path / "run"),
        *("--preset", "notebook-small"),
    )
    assert result.code == 2
    assert "`fusion` must be 'cross_attention'" in result.err
