"""Options that cannot be used: one line, code 2 and nothing written."""

import importlib.util
import sys

import pytest

from bmt_keras.settings import Settings

# InceptionV3 takes no image below 75 pixels.
INCEPTION = [
    *("--preset", "small", "--image-layer", "mixed0"),
    *("--image-height", 75, "--image-width", 75),
]

# === Settings ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fusion", "sum"], "`fusion` must be one of cross_attention, "),
        (["--text-num-heads", 5], "`text_num_heads` must be a divisor of"),
        (
            ["--preset", "coco", "--cached-maskings", 5],
            "`fusion` must be 'concat' for cached maskings",
        ),
        (
            ["--vocabulary", "gone.model"],
            "gone.model: expected a SentencePiece model",
        ),
        (["--strategy", "ring"], "`strategy` must be one of mirrored, "),
        (["--strategy", "multi-worker"], "TF_CONFIG: expected the addresses"),
        (["--strategy", "tpu"], "`tpu_address` must name a TPU"),
        (["--tpu-address", "local"], "with the strategy 'tpu' alone"),
        (
            ["--strategy", "mirrored", "--self-critical-samples", 2],
            "`self_critical_samples` must be 0 with a strategy",
        ),
    ],
)
def test_bad_setting_of_training_is_refused(
    refuse, write_captions, tmp_path, monkeypatch, options, message
):
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    train = ("train", *write_captions(), "--out", tmp_path / "run")
    assert message in refuse(*train, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "huge"], "`preset` must be one of sample, notebook"),
        (["--seed", -1], "`seed` must be at least 0 and below 4294967296."),
        (["--image-height", 0], "`image_height` must be at least 1."),
    ],
)
def test_bad_setting_is_refused(
    refuse, reading, write_captions, options, message
):
    assert message in refuse(*reading, *write_captions(), *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--image-model", "VGG99"],
            "`image_model` must be SmallCNN or a model",
        ),
        (
            [*INCEPTION, "--image-weights", "gone.weights.h5"],
            "gone.weights.h5: expected a file of image weights, found no such",
        ),
    ],
)
def test_bad_image_model_is_refused(
    refuse, prepare, write_captions, options, message
):
    assert message in refuse(*prepare, *write_captions(), *options)


def test_folder_of_a_run_with_other_settings_is_refused(
    refuse, write_captions, tmp_path
):
    run = tmp_path / "run"
    run.mkdir()
    Settings().replace(epochs=77).save(run / "settings.json")
    line = refuse("train", "--out", run, *write_captions())
    assert f"{run}: the folder holds a run with other settings: " in line
    assert "`epochs` is 77 there, expected 4" in line


# === Captioners and served models ===


@pytest.mark.parametrize(
    "arguments",
    [("caption", "photo.jpg"), ("export", "--out", "models"), ("evaluate",)],
)
def test_folder_without_a_captioner_is_refused(
    refuse, write_captions, tmp_path, arguments
):
    if arguments == ("evaluate",):
        arguments = (*arguments, *write_captions(), "--out", tmp_path / "out")
    line = refuse(*arguments, "--captioner", tmp_path)
    assert f"{tmp_path}: expected a captioner's folder with model.keras" in line


def test_file_that_is_no_model_is_refused(refuse, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"junk")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"")
    line = refuse("caption", photo, "--captioner", tmp_path)
    assert f"{tmp_path / 'model.keras'}: expected a saved Keras model" in line


def test_bad_folders_of_models_and_sample_are_refused(refuse, tmp_path):
    gone = tmp_path / "gone"
    assert str(gone) in refuse("serve", "--models", gone, "--port", 0)
    (tmp_path / "notes.txt").write_text("mine")
    line = refuse("sample", "--out", tmp_path, "--train", 2, "--val", 1)
    assert f"{tmp_path} exists and is not a sample data set." in line


# === The command line itself ===


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--colour", "red"], "No such option: --colour"),
        (["paint"], "No such command 'paint'"),
        (["train"], "Missing option '--captions'"),
        (["train", "--epochs", "ten"], "Invalid value for '--epochs'"),
        (["sample", "--train", "0"], "Invalid value for '--train'"),
        (["caption"], "Missing argument"),
    ],
)
def test_bad_usage_is_refused(bmt, arguments, message):
    result = bmt(*arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert "Traceback" not in result.err


def test_runner_without_beam_is_refused(
    refuse, prepare, write_captions, monkeypatch
):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "bmt_keras.training.beam", raising=False)
    line = refuse(*prepare, *write_captions(), "--runner", "DirectRunner")
    assert line == (
        "bmt: `bmt prepare` needs apache_beam: pip install 'bmt-keras[beam]', "
        "in an environment of its own"
    )


def test_training_without_its_extras_is_refused(
    refuse, write_captions, tmp_path, monkeypatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: (
            None if name == "pycocoevalcap" else find(name, *rest)
        ),
    )
    line = refuse("train", *write_captions(), "--out", tmp_path / "run")
    assert line == (
        "bmt: `bmt train` needs pycocoevalcap: pip install "
        "'bmt-keras[evaluation]'"
    )


def test_options_of_no_runner_are_refused(refuse, prepare, write_captions):
    line = refuse(*prepare, *write_captions(), "--runner-options", "--a=b")
    assert "`--runner-options` cannot be given without `--runner`" in line
