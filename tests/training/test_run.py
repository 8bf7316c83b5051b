import csv
import operator
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import bmt_keras
from bmt_keras import progress
from bmt_keras.captioner import Captioner
from bmt_keras.commands import main
from bmt_keras.data.tokenizer import CaptionTokenizer
from bmt_keras.errors import InputError
from bmt_keras.models import BimodalMaskedLM, build_image_tower
from bmt_keras.training import callbacks
from bmt_keras.training.callbacks import drop_epochs, load_last
from bmt_keras.training.optimizer import count_batches
from bmt_keras.training.run import Run

SMALL = {
    "image_height": 16,
    "image_width": 16,
    "text_hidden_dim": 16,
    "epochs": 1,
}


@pytest.fixture(scope="module")
def settings(tiny_settings):
    """Checkpoints fall between two updates, and the weights are averaged."""
    return tiny_settings.replace(
        checkpoint_steps=4, gradient_accumulation_steps=3, ema_momentum=0.5
    )


@pytest.fixture(scope="module")
def finished(run, settings, tmp_path_factory):
    """The folder of a whole run, and its captioner."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(settings, folder)


def test_run_leaves_captioner_logs_and_checkpoints(finished, sample_photos):
    folder, captioner = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "captioner",
        "checkpoints",
        "history.csv",
        "identity.json.gz",
        "settings.json",
        "tensorboard",
    }
    checkpoints = sorted(p.name for p in (folder / "checkpoints").iterdir())
    assert "best.keras" in checkpoints
    assert len([name for name in checkpoints if name.startswith("step-")]) == 3
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"loss", "masked_accuracy", "val_loss", "learning_rate"} <= set(
        rows[0]
    )
    events = list((folder / "tensorboard").rglob("events.*"))
    assert {path.parent.name for path in events} >= {
        *("train", "captions", "steps"),
    }
    photos = [photo.path for photo in sample_photos[1]]
    again = Captioner.from_preset(folder / "captioner")
    assert again.caption(photos) == captioner.caption(photos)


def test_average_of_the_weights_is_what_is_saved(finished):
    folder, captioner = finished
    # Keras' own list of the averages.
    averages = captioner.model.optimizer._model_variables_moving_average
    for weight, average in zip(
        captioner.model.trainable_weights, averages, strict=True
    ):
        np.testing.assert_array_equal(np.array(weight), np.array(average))
    again = keras.saving.load_model(folder / "captioner" / "model.keras")
    assert not again.compiled  # an optimizer would be most of the file
    for one, other in zip(again.weights, captioner.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


# A stopped fit leaves Keras' CSV log open, as a kill does.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("weights_only")
def test_run_that_stops_between_two_updates_goes_on_as_if_it_had_not(
    run, finished, settings, tmp_path, stop_at
):
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path, callbacks=[stop_at(7)])
    last = load_last(tmp_path / "checkpoints")
    assert count_batches(last.optimizer) == 4
    stopped = run(settings, tmp_path).model
    untouched = finished[1].model
    for name in ("weights", "optimizer.variables"):
        read = operator.attrgetter(name)
        for one, other in zip(read(stopped), read(untouched), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.usefixtures("weights_only")
def test_finished_run_is_not_trained_but_takes_another_weight_of_concepts(
    run, finished, settings, tmp_path
):
    folder, first = finished
    shutil.copytree(folder, tmp_path / "run")
    settings = settings.replace(concept_weight=0.9)
    second = run(settings, tmp_path / "run")
    assert count_batches(first.model.optimizer) == count_batches(
        second.model.optimizer
    )
    assert second.model.concept_weight == 0.9
    again = Captioner.from_preset(tmp_path / "run" / "captioner")
    assert again.model.concept_weight == 0.9


def test_folder_of_another_run_is_refused(tiny_settings, tmp_path):
    Run(tiny_settings, tmp_path)
    tiny_settings.save(tmp_path / "settings.json")
    Run(tiny_settings, tmp_path)
    Run(
        tiny_settings.replace(
            checkpoint_steps=7, keep_checkpoints=9, passes=1, concept_weight=0.5
        ),
        tmp_path,
    )
    other = tiny_settings.replace(learning_rate=0.5)
    with pytest.raises(InputError, match=r"`learning_rate` is 0\.001 there"):
        Run(other, tmp_path)
    with pytest.raises(InputError, match="must be 0 without `start`"):
        Run(tiny_settings.replace(self_critical_samples=2), tmp_path)


@pytest.mark.usefixtures("weights_only")
def test_epochs_have_as_many_steps_as_asked_of_captions_of_all_lengths(
    run, tiny_settings, tmp_path, monkeypatch
):
    """Three epochs of two steps; a checkpoint after the second and the end."""
    traced = []
    step = BimodalMaskedLM.train_step
    monkeypatch.setattr(
        BimodalMaskedLM,
        "train_step",
        lambda model, data: traced.append(data) or step(model, data),
    )
    settings = tiny_settings.replace(
        epochs=3,
        steps_per_epoch=2,
        bucket_width=0,
        batch_size=2,
        checkpoint_steps=0,
        checkpoint_epochs=2,
    )
    captioner = run(settings, tmp_path)
    assert int(captioner.model.optimizer.iterations) == 6
    found = (tmp_path / "checkpoints").glob("step-*.keras")
    assert sorted(path.stem for path in found) == [
        "step-00000004",
        "step-00000006",
    ]
    # Captions of all lengths share one trace.
    assert [data["token_ids"].shape for data in traced] == [(None, None)]


def test_epochs_that_are_run_again_leave_the_history(tmp_path):
    path = tmp_path / "history.csv"
    drop_epochs(path, 1)
    assert not path.exists()
    path.write_text("epoch,loss\n0,3.5\n1,3.0\n2,2.5\n")
    drop_epochs(path, 3)
    drop_epochs(path, 1)
    assert path.read_text() == "epoch,loss\n0,3.5\n"
    path.write_text("")
    drop_epochs(path, 1)
    assert path.read_text() == ""


def test_broken_last_checkpoint_is_passed(finished, tmp_path, caplog):
    folder = shutil.copytree(finished[0] / "checkpoints", tmp_path / "copy")
    (folder / "step-00099999.keras").write_bytes(b"half a file")
    model = load_last(folder)
    assert 0 < count_batches(model.optimizer) < 99999
    assert "step-00099999.keras cannot be loaded" in caplog.text


def test_checkpoints_that_no_code_loads_do_not_begin_the_run_anew(
    run, finished, settings, tmp_path
):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    steps = sorted((folder / "checkpoints").glob("step-*.keras"))
    for path in steps:
        path.write_bytes(b"of another version")
    with pytest.raises(InputError, match="can be loaded, found none"):
        run(settings, folder)
    assert {path.read_bytes() for path in steps} == {b"of another version"}
    assert load_last(tmp_path) is None


@pytest.mark.usefixtures("weights_only")
def test_damaged_checkpoint_takes_no_whole_one_s_place(
    run, finished, settings, tmp_path
):
    out, settings = tmp_path / "run", settings.replace(keep_checkpoints=1)
    folder = out / "checkpoints"
    shutil.copytree(finished[0] / "checkpoints", folder)
    *_, before, last = sorted(folder.glob("step-*.keras"))
    last.write_bytes(b"half a file")
    run(settings, out)
    assert count_batches(load_last(folder).optimizer) == int(last.stem[5:])
    assert not before.exists()


@pytest.fixture
def swapped(data):
    """The data with two captions swapped, and with a word of its own."""

    def swap(change):
        images = list(data.train)
        images[3] = replace(images[3], captions=change(images[3].captions))
        return replace(data, train=images)

    return swap


def test_run_of_other_captions_is_refused(
    finished, settings, tokenizer, swapped, tmp_path
):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    tower = build_image_tower(settings)
    for change, message in (
        (lambda x: ("another red", *x[1:]), r"captions that differ \(1\)"),
        (lambda x: x[1:] + x[:1], "images or captions come in another order"),
    ):
        with pytest.raises(InputError, match=message):
            Run(settings, folder, verbose=0).train(
                swapped(change), tokenizer, tower
            )
    other = CaptionTokenizer.from_captions(["a red square", "a dog"])
    with pytest.raises(InputError, match="the vocabulary has 9 tokens, this "):
        Run(settings, folder, verbose=0).check(
            (swapped(tuple).train, swapped(tuple).val), other
        )


@pytest.mark.usefixtures("weights_only")
def test_second_run_in_a_folder_is_refused_while_the_first_one_goes_on(
    tiny_sample, tmp_path
):
    found = []

    class Second(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            with pytest.raises(InputError) as refused:
                train()
            found.append(str(refused.value))

    def train(*callbacks):
        return bmt_keras.train(
            captions=tiny_sample / "captions_train.json",
            images=tiny_sample / "images" / "train",
            out=tmp_path / "run",
            limit=16,
            verbose=0,
            callbacks=callbacks,
            **SMALL,
        )

    train(Second())
    holder = rf"run: another .* writing it \(process {os.getpid()} on \S+ since"
    (message,) = found
    assert re.search(holder, message), message
    assert not (tmp_path / ".run.lock").exists()
    train()


def test_steps_are_shown_with_the_whole_run_s_end(
    run, tiny_settings, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    settings = tiny_settings.replace(steps_per_epoch=3)
    run(settings, tmp_path, verbose=1)
    out, err = capsys.readouterr()
    assert "Epoch 2/2" in out
    assert not {"\b", "\r", "\x1b"} & {*out, *err}
    shown = [x for x in err.splitlines() if x.startswith("Training: ")]
    assert re.match(r"Training: 1 of 6, [\d:]+ left, .*/s, loss \d", shown[1])
    assert any(", validation batch 1" in line for line in shown)
    assert any(
        line.startswith("Training: 6 of 6, 0:00:00 left") for line in shown
    )
    assert "Calibrating confidences: 8 of 8" in err


def test_tensorboard_has_steps_and_photos(
    run, tiny_settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(callbacks, "_SUMMARY_STEPS", 2)
    run(tiny_settings.replace(steps_per_epoch=3), tmp_path)
    found = {}
    for path in tmp_path.glob("tensorboard/*/events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                where = path.parent.name, value.tag
                found.setdefault(where, []).append((event.step, value))
    assert [step for step, _ in found["steps", "loss"]] == [2, 4, 6]
    ((_, photos),) = found["captions", "photos"]
    # Width, height and six PNGs.
    assert len(photos.tensor.string_val) == 2 + 6
    assert len(found["captions", "captions"]) == 2


def test_train_is_a_function_of_the_package(
    tiny_sample, tiny_settings, tmp_path, capsys
):
    assert {"Captioner", "train"} <= set(dir(bmt_keras))
    assert bmt_keras.Captioner is Captioner
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        bmt_keras.colour  # noqa: B018
    images = tiny_sample / "images" / "train"
    captioner = bmt_keras.train(
        "sample",
        captions=tiny_sample / "captions_train.json",
        images=str(images),
        out=str(tmp_path / "run"),
        cache=tmp_path / "cache",
        limit=16,
        val_share=0.5,
        verbose=0,
        **SMALL,
    )
    assert (tmp_path / "cache" / "val").is_dir()
    for name in ("metrics.json", "grid.png", "curves.png"):
        assert (tmp_path / "run" / name).is_file()
    path = next(images.iterdir())
    again = Captioner.from_preset(tmp_path / "run" / "captioner")
    assert again.caption([path]) == captioner.caption([path])
    with pytest.raises(InputError, match="There is no setting `colour`"):
        bmt_keras.train(captions="a", images="b", out="c", colour="red")


def test_killed_command_goes_on_to_the_same_number_of_steps(
    tiny_sample, tiny_settings, tmp_path, monkeypatch
):
    """The real thing: SIGKILL in mid-epoch, then the same command again."""
    out = tmp_path / "run"
    small = [
        f"--{name.replace('_', '-')}={tiny_settings.get(name)}"
        for name in (
            *("text_hidden_dim", "text_embedding_dim"),
            *("text_intermediate_dim", "text_num_heads", "fusion_num_heads"),
        )
    ]
    arguments = [
        "train",
        f"--captions={tiny_sample / 'captions_train.json'}",
        f"--images={tiny_sample / 'images' / 'train'}",
        "--val-share=0.25",
        f"--out={out}",
        *("--epochs=4", "--captions-per-image=1", "--batch-size=4"),
        *("--checkpoint-steps=2", "--keep-checkpoints=1000"),
        *small,
    ]
    code = "from bmt_keras.commands import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300  # for a machine that does other things
    while not list((out / "checkpoints").glob("step-*.keras")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "captioner").exists()
    monkeypatch.setattr(sys, "argv", ["bmt", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    model = load_last(out / "checkpoints")
    with (out / "history.csv").open() as file:
        epochs = [row["epoch"] for row in csv.DictReader(file)]
    assert epochs == ["0", "1", "2", "3"]
    assert int(model.optimizer.iterations) % 4 == 0
    assert (out / "captioner" / "model.keras").is_file()
    assert (out / "metrics.json").is_file()
