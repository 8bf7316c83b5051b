import json
import math

import pytest

from bmt_keras.errors import InputError
from bmt_keras.presets import PRESETS, resolve_settings
from bmt_keras.settings import Settings

# === On disk ===


@pytest.mark.parametrize("preset", PRESETS)
def test_saved_settings_read_back(preset, tmp_path):
    path = tmp_path / "settings.json"
    PRESETS[preset].save(path)
    assert Settings.load(str(path)) == PRESETS[preset]
    content = json.loads(path.read_text())
    assert {(group, name) for group, v in content.items() for name in v} == {
        (option.group, option.field.name) for option in Settings.options()
    }


def test_fields_that_a_file_lacks_have_their_default(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"optimization": {"epochs": 3}}')
    assert Settings.load(path) == Settings().replace(epochs=3)


SOMETHING_ELSE = r"settings\.json: expected saved settings, found"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((content, SOMETHING_ELSE) for content in (b"", b"{", b"\xff\xfe")),
        *((content, SOMETHING_ELSE) for content in (b"[]", b"3")),
        (b'{"colour": "red"}', SOMETHING_ELSE),
        (b'{"image": "red"}', SOMETHING_ELSE),
        (b'{"image": {"colour": "red"}}', SOMETHING_ELSE),
        (b'{"epochs": 3}', SOMETHING_ELSE),
        (None, SOMETHING_ELSE),
        *(
            (
                f'{{"optimization": {{"epochs": {value}}}}}'.encode(),
                r"settings\.json: `epochs` must be",
            )
            for value in ("0", '"three"', "null", "2.5")
        ),
    ],
)
def test_file_that_holds_no_settings_is_named(tmp_path, content, message):
    path = tmp_path / "settings.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Settings.load(path)


def test_settings_are_never_seen_half_written(tmp_path, monkeypatch):
    path = tmp_path / "settings.json"
    Settings().replace(epochs=3).save(path)

    def look(_):
        assert Settings.load(path).optimization.epochs == 3

    monkeypatch.setattr("os.fsync", look)
    Settings().replace(epochs=4).save(path)
    assert Settings.load(path).optimization.epochs == 4


# === Names ===


def test_flat_names_are_unique_and_find_their_field():
    options = list(Settings.options())
    assert len({option.name for option in options}) == len(options)
    settings = Settings().replace(image_height=32, passes=2)
    assert (settings.image.height, settings.decoding.passes) == (32, 2)
    assert settings.get("image_height") == 32


def test_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"no setting `colour`; .*image_model"):
        Settings().replace(colour="red")


def test_only_the_notebook_reads_images_like_opencv():
    like_opencv = {k for k, v in PRESETS.items() if v.image.like_opencv}
    assert like_opencv == {"notebook"}


# === Ranges ===

COUNTS = (
    *("image_height", "image_width", "text_num_layers", "text_num_heads"),
    *("text_embedding_dim", "text_hidden_dim", "text_intermediate_dim"),
    *("fusion_num_layers", "fusion_num_heads", "epochs", "batch_size"),
    *("passes", "length_candidates"),
)
SHARES = ("mask_rate", "text_dropout", "fusion_dropout", "warmup_share")
POSITIVE = ("learning_rate", "adam_epsilon", "clipnorm")
OUT_OF_RANGE = [
    *((name, value) for name in COUNTS for value in (0, -1)),
    *((name, value) for name in SHARES for value in (-0.1, 1.1, math.nan)),
    *(("label_smoothing", value) for value in (-0.1, 1.0)),
    *((name, value) for name in POSITIVE for value in (0.0, -1.0, math.nan)),
    ("weight_decay", -0.1),
    *(("seed", value) for value in (-1, 2**32)),
    *(("sequence_length", value) for value in (2, 0, -1)),
    ("fusion", "sum"),
    ("schedule", "linear"),
    ("image_precision", "auto"),
    ("matmul_precision", "auto"),
    ("dtype_policy", "mixed_float16"),
    ("self_critical_samples", 1),
    ("epochs", "3"),
    ("mirror", "yes"),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_value_out_of_range_is_refused(name, value):
    with pytest.raises(
        InputError, match=rf"`{name}` must be .*Received: (\w+=)?{value}\."
    ):
        Settings().replace(**{name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_rate": 1.0, "text_dropout": 1.0, "warmup_share": 1.0},
        {"label_smoothing": 0.0, "weight_decay": 0.0, "seed": 0},
        {"seed": 2**32 - 1},
        {"sequence_length": 3, "max_positions": 3},
        {"text_num_layers": 1, "fusion_num_heads": 1, "passes": 1},
        # A pretrained model has a width of its own, and concat no heads.
        {
            "text_weights": "albert_large",
            "fusion_num_heads": 5,
            "text_num_heads": 5,
        },
        {"fusion": "concat", "fusion_num_heads": 5},
        {"image_trainable": False, "image_precision": "bfloat16"},
        {"concept_dim": 8},
        {"self_critical_samples": 2},
    ],
)
def test_ends_of_the_ranges_are_inside(changes):
    settings = Settings().replace(**changes)
    assert {k: settings.get(k) for k in changes} == changes


CACHED = {"fusion": "concat", "text_trainable": False, "cached_maskings": 5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sequence_length": 64, "max_positions": 63},
            "`max_positions` must be at least sequence_length=64.*=63",
        ),
        *(
            ({name: 5}, rf"`{name}` must be a divisor of .*=128.*{name}=5")
            for name in ("text_num_heads", "fusion_num_heads")
        ),
        (
            {"image_precision": "bfloat16"},
            "`image_precision` must be 'float32' .*=bfloat16",
        ),
        (
            {"concept_dim": 8, "fusion": "concat"},
            "`concept_dim` must be 0 for",
        ),
        (
            {"self_critical_samples": 2, "fusion": "concat"},
            "`self_critical_samples` must be 0",
        ),
        (
            {"lora_rank": 8, "text_trainable": False},
            "`lora_rank` must be 0 for a frozen",
        ),
        (
            {"text_weights": "hf://albert/x", "prune_vocabulary": True},
            "`prune_vocabulary` must be False",
        ),
        ({"redraw_epochs": 3}, "`redraw_epochs` must be 0 without"),
        *(
            ({"jit_compile": True, **each}, "`jit_compile` must be False for")
            for each in ({"self_critical_samples": 2}, CACHED)
        ),
        *(
            ({**CACHED, name: value}, rf"`{name}` must be .*: {name}={value}\.")
            for name, value in (
                ("fusion", "cross_attention"),
                ("text_trainable", True),
                ("text_dropout", 0.1),
                ("redraw_epochs", 4),
                ("cached_maskings", -1),
            )
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Settings().replace(**changes)


# === Presets ===


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_without_overrides_is_itself(preset):
    assert resolve_settings(preset, {}) == PRESETS[preset]
    # Not what this machine would choose.
    assert PRESETS[preset].optimization.matmul_precision == "float32"


def test_preset_sample_is_the_default():
    assert PRESETS["sample"] == Settings()


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("coco", {"epochs": 3, "fusion": "concat"}),
        # Zero and False count as given.
        ("coco", {"weight_decay": 0.0, "predict_length": False, "seed": 0}),
        ("notebook", {"cached_maskings": 5}),
        ("notebook", {"cached_maskings": 5, "redraw_epochs": 5}),
    ],
)
def test_override_replaces_its_field_alone(preset, changes):
    none = {o.name: None for o in Settings.options()}
    settings = resolve_settings(preset, {**none, **changes})
    assert settings == PRESETS[preset].replace(**changes)
    assert {k: settings.get(k) for k in changes} == changes


def test_unknown_preset_is_told_with_those_there_are():
    with pytest.raises(
        InputError,
        match=r"one of sample, notebook, coco, small\. Received: huge\.",
    ):
        resolve_settings("huge", {})
