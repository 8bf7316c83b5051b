TEXTS = [
    f"a {word} dog runs" for word in ["red", "blue", "big", "small", "old"]
]


def test_training_starts_from_pretraining_and_learns_from_samples(
    bmt, tiny_settings, tiny_sample, tmp_path
):
    text = tmp_path / "captions.txt"
    text.write_text("\n".join(TEXTS * 4))
    options = [
        *("--preset", "sample", "--epochs", 1),
        *(
            f"--{name.replace('_', '-')}={tiny_settings.get(name)}"
            for name in (
                *("text_hidden_dim", "text_embedding_dim"),
                *("text_intermediate_dim", "text_num_heads"),
            )
        ),
    ]
    out = tmp_path / "text"
    result = bmt("pretrain", "--text", text, "--out", out, *options)
    assert result.code == 0, result
    train = (
        *("train", "--start", out / "captioner"),
        *("--captions", tiny_sample / "captions_train.json"),
        *("--images", tiny_sample / "images" / "train"),
    )
    result = bmt(
        *(*train, "--out", tmp_path / "run", *options),
        *("--self-critical-samples", 2, "--steps-per-epoch", 1),
    )
    assert result.code == 0, result
    assert (tmp_path / "run" / "metrics.json").is_file()
    text.write_text("\n".join([*TEXTS * 4, "a new dog"]))
    result = bmt("pretrain", "--text", text, "--out", out, *options)
    assert result.code == 2
    assert "captions that differ (1); the vocabulary has 14" in result.err
    result = bmt(*train, "--out", tmp_path / "other")
    assert result.code == 2
    assert "The captioner to start from is of another shape" in result.err
