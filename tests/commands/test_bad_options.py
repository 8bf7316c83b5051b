"""Options that cannot be used: one line, code 2 and nothing written."""

import importlib.util
import sys

import keras
import pytest

from bmt_keras.settings import Settings

# InceptionV3 takes no image below 75 pixels.
INCEPTION = [
    *("--preset", "small", "--image-layer", "mixed0"),
    *("--image-height", 75, "--image-width", 75),
]

# === Strategies ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
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
def test_bad_strategy_is_refused(
    refuse, write_captions, tmp_path, monkeypatch, options, message
):
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    train = ("train", *write_captions(), "--out", tmp_path / "run")
    assert message in refuse(*train, *options)


# === Settings ===


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
        (["--fusion", "sum"], "`fusion` must be one of cross_attention, "),
        (["--text-num-heads", 5], "`text_num_heads` must be a divisor of"),
    ],
)
def test_bad_setting_of_training_is_refused(
    refuse, write_captions, tmp_path, options, message
):
    train = ("train", *write_captions(), "--out", tmp_path / "run")
    assert message in refuse(*train, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--image-model", "VGG99"],
            "`image_model` must be SmallCNN or a model",
        ),
        (
            ["--no-image-trainable"],
            "SmallCNN has no pretrained weights",
        ),
        (
            [*INCEPTION, "--image-height", 74, "--image-weights", "random"],
            "InceptionV3 cannot be built for images of 74x75: ",
        ),
        (
            [*INCEPTION, "--image-layer", "no", "--image-weights", "random"],
            "`image_layer` must name a layer of InceptionV3, such as ",
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


@pytest.mark.slow
def test_weights_of_another_model_are_refused(
    refuse, prepare, write_captions, tmp_path
):
    path = tmp_path / "other.weights.h5"
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(path)
    line = refuse(
        *prepare, *write_captions(), *INCEPTION, "--image-weights", path
    )
    assert f"{path}: expected weights of InceptionV3" in line
    assert "found 2 arrays" in line


def test_file_of_no_weights_is_refused(
    refuse, prepare, write_captions, tmp_path
):
    path = tmp_path / "junk.weights.h5"
    path.write_bytes(b"junk")
    line = refuse(
        *prepare, *write_captions(), *INCEPTION, "--image-weights", path
    )
    assert f"{path}: expected weights written by Keras" in line


def test_missing_vocabulary_is_refused(refuse, write_captions, tmp_path):
    gone = tmp_path / "gone.model"
    line = refuse(
        *("train", "--out", tmp_path / "run", *write_captions()),
        *("--vocabulary", gone),
    )
    assert f"{gone}: expected a SentencePiece model" in line


def test_folder_of_a_run_with_other_settings_is_refused(
    refuse, write_captions, tmp_path
):
    run = tmp_path / "run"
    run.mkdir()
    Settings().replace(epochs=77).save(run / "settings.json")
    line = refuse("train", "--out", run, *write_captions())
    assert f"{run}: the folder holds a run with other settings: " in line
    assert (
        f"`epochs` is 77 there, expected {Settings().optimization.epochs}"
        in line
    )


# === Captioners and served models ===


@pytest.mark.parametrize(
    "arguments",
    [
        ("caption", "photo.jpg", "--captioner"),
        ("export", "--out", "models", "--captioner"),
    ],
)
def test_folder_without_a_captioner_is_refused(refuse, tmp_path, arguments):
    line = refuse(*arguments, tmp_path)
    assert f"{tmp_path}: expected a captioner's folder with model.keras" in line


def test_evaluation_without_a_captioner_is_refused(
    refuse, write_captions, tmp_path
):
    line = refuse(
        *("evaluate", *write_captions(), "--out", tmp_path / "scores"),
        *("--captioner", tmp_path / "gone"),
    )
    assert f"{tmp_path / 'gone'}: expected a captioner's folder" in line


def test_file_that_is_no_model_is_refused(refuse, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"junk")
    line = refuse("caption", "photo.jpg", "--captioner", tmp_path)
    assert f"{tmp_path / 'model.keras'}: expected a saved Keras model" in line


def test_missing_models_folder_is_refused(refuse, tmp_path):
    gone = tmp_path / "gone"
    assert str(gone) in refuse("serve", "--models", gone, "--port", 0)


def test_folder_with_other_files_is_no_place_for_the_sample(refuse, tmp_path):
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
    assert "`--runner-options` must be given with `--runner`" in line
