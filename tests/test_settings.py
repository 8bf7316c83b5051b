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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"3",
        b'{"colour": "red"}',
        b'{"image": "red"}',
        b'{"image": {"colour": "red"}}',
        b'{"epochs": 3}',
    ],
)
def test_file_of_something_else_is_named(tmp_path, content):
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"settings\.json: expected saved settings, found"
    ):
        Settings.load(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: expected saved"):
        Settings.load(tmp_path / "gone.json")


@pytest.mark.parametrize("value", ["0", '"three"', "null", "2.5"])
def test_bad_saved_value_is_named_with_the_file(tmp_path, value):
    path = tmp_path / "settings.json"
    path.write_text(f'{{"optimization": {{"epochs": {value}}}}}')
    with pytest.raises(InputError, match=r"settings\.json: `epochs` must be"):
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


# === Ranges ===

COUNTS = (
    "image_height",
    "image_width",
    "text_num_layers",
    "text_num_heads",
    "text_embedding_dim",
    "text_hidden_dim",
    "text_intermediate_dim",
    "fusion_num_layers",
    "fusion_num_heads",
    "epochs",
    "batch_size",
    "passes",
    "length_candidates",
)
SHARES = ("mask_rate", "text_dropout", "fusion_dropout", "warmup_share")
OUT_OF_RANGE = [
    *((name, value) for name in COUNTS for value in (0, -1)),
    *((name, value) for name in SHARES for value in (-0.1, 1.1, math.nan)),
    *(("label_smoothing", value) for value in (-0.1, 1.0)),
    *(
        (name, value)
        for name in ("learning_rate", "adam_epsilon", "clipnorm")
        for value in (0.0, -1.0, math.nan)
    ),
    *((name, -0.1) for name in ("length_loss_weight", "weight_decay")),
    *(("seed", value) for value in (-1, 2**32)),
    *(("sequence_length", value) for value in (2, 0, -1)),
    ("fusion", "sum"),
    ("schedule", "linear"),
    ("image_precision", "auto"),
    ("matmul_precision", "auto"),
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
    ],
)
def test_ends_of_the_ranges_are_inside(changes):
    settings = Settings().replace(**changes)
    assert {k: settings.get(k) for k in changes} == changes


def test_positions_must_hold_the_longest_sequence():
    with pytest.raises(
        InputError,
        match=r"`max_positions` must be at least sequence_length=64.*=63",
    ):
        Settings().replace(sequence_length=64, max_positions=63)


@pytest.mark.parametrize("name", ["text_num_heads", "fusion_num_heads"])
def test_heads_must_divide_the_width(name):
    with pytest.raises(
        InputError,
        match=rf"`{name}` must be a divisor of text_hidden_dim=128.*{name}=5",
    ):
        Settings().replace(**{name: 5})


def test_width_of_a_pretrained_model_is_its_own():
    Settings().replace(
        text_weights="albert_large", fusion_num_heads=5, text_num_heads=5
    )


def test_heads_of_a_fusion_without_heads_are_not_looked_at():
    Settings().replace(fusion="concat", fusion_num_heads=5)


def test_precision_of_embeddings_needs_embeddings():
    Settings().replace(image_trainable=False, image_precision="bfloat16")
    with pytest.raises(
        InputError, match=r"`image_precision` must be 'float32' .*=bfloat16"
    ):
        Settings().replace(image_precision="bfloat16")


def test_concepts_need_a_fusion_that_attends_to_the_image():
    Settings().replace(concept_dim=8)
    with pytest.raises(InputError, match="`concept_dim` must be 0 for"):
        Settings().replace(concept_dim=8, fusion="concat")


# === Presets ===


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_without_overrides_is_itself(preset):
    assert resolve_settings(preset, {}) == PRESETS[preset]


def test_preset_sample_is_the_default():
    assert PRESETS["sample"] == Settings()


def test_override_replaces_its_field_alone():
    settings = resolve_settings("coco", {"epochs": 3, "fusion": "concat"})
    assert settings == PRESETS["coco"].replace(epochs=3, fusion="concat")


def test_override_of_none_keeps_the_presets_value():
    every = {o.name: None for o in Settings.options()}
    assert resolve_settings("notebook", every) == PRESETS["notebook"]


def test_override_of_zero_or_false_counts():
    settings = resolve_settings(
        "coco", {"weight_decay": 0.0, "predict_length": False, "seed": 0}
    )
    assert settings.optimization.weight_decay == 0.0
    assert settings.fusion.predict_length is False


def test_override_out_of_range_is_refused():
    with pytest.raises(InputError, match="`epochs` must be at least 1"):
        resolve_settings("sample", {"epochs": 0})


def test_unknown_preset_is_told_with_those_there_are():
    with pytest.raises(
        InputError,
        match=r"one of sample, notebook, coco, small\. Received: huge\.",
    ):
        resolve_settings("huge", {})


def test_pretrained_vocabulary_is_not_pruned():
    with pytest.raises(InputError, match=r"`prune_vocabulary` must be False"):
        resolve_settings("small", {"text_weights": "hf://albert/x"})


def test_preset_small_does_not_depend_on_the_processor():
    assert PRESETS["small"].optimization.matmul_precision == "float32"


# === Cached maskings ===


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fusion", "cross_attention"),
        ("text_trainable", True),
        ("text_dropout", 0.1),
        ("redraw_epochs", 4),
        ("cached_maskings", -1),
    ],
)
def test_settings_that_cached_maskings_cannot_have_are_told(name, value):
    changes = {"cached_maskings": 5, name: value}
    with pytest.raises(
        InputError, match=rf"`{name}` must be .*Received: {name}={value}\."
    ):
        resolve_settings("notebook", changes)


def test_cached_maskings_suit_the_notebook():
    for redraw_epochs in (0, 5, 50):
        changes = {"cached_maskings": 5, "redraw_epochs": redraw_epochs}
        assert resolve_settings("notebook", changes).get("cached_maskings") == 5


def test_nothing_is_redrawn_without_cached_maskings():
    with pytest.raises(InputError, match="`redraw_epochs` must be 0 without"):
        Settings().replace(redraw_epochs=3)


def test_lora_needs_a_text_tower_that_is_trained():
    with pytest.raises(InputError, match="`lora_rank` must be 0 for a frozen"):
        Settings().replace(lora_rank=8, text_trainable=False)


def test_samples_need_a_fusion_that_attends_to_the_image():
    assert Settings().replace(self_critical_samples=2)
    with pytest.raises(InputError, match="`self_critical_samples` must be 0"):
        Settings().replace(self_critical_samples=2, fusion="concat")


@pytest.mark.parametrize(
    "changes",
    [
        {"self_critical_samples": 2},
        {"fusion": "concat", "text_trainable": False, "cached_maskings": 1},
    ],
)
def test_steps_of_changing_shapes_are_not_compiled(changes):
    assert Settings().replace(**changes)
    with pytest.raises(InputError, match="`jit_compile` must be False for"):
        Settings().replace(jit_compile=True, **changes)


def test_dtype_policy_is_one_that_captioners_are_trained_in():
    with pytest.raises(InputError, match="`dtype_policy` must be one of"):
        Settings().replace(dtype_policy="mixed_float16")
