import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from bmt_keras import training
from bmt_keras.captioner import Captioner
from bmt_keras.errors import InputError
from bmt_keras.models import BimodalMaskedLM, build_image_tower
from bmt_keras.training.callbacks import drop_epochs
from bmt_keras.training.checkpoints import load_last


def run(photos, settings, folder, **options):
    train, val = photos
    keras.utils.set_random_seed(settings.optimization.seed)
    encoder = build_image_tower(settings)
    data = training.prepare_data(
        train,
        val,
        training.feature_source(settings, encoder),
        cache=folder / "cache",
    )
    return training.train_captioner(
        data,
        settings,
        tokenizer=training.make_tokenizer(settings, train),
        image_tower=encoder,
        out=folder,
        verbose=0,
        **options,
    )


@pytest.fixture(scope="module")
def finished(sample_photos, tiny_settings, tmp_path_factory):
    """The folder of a whole run, and its captioner."""
    folder = tmp_path_factory.mktemp("finished")
    settings = tiny_settings.replace(checkpoint_steps=5)
    captioner = run(sample_photos, settings, folder)
    return folder, captioner


def test_run_leaves_captioner_logs_and_checkpoints(finished, sample_photos):
    folder, captioner = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "cache",
        "captioner",
        "checkpoints",
        "history.csv",
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
    assert {path.parent.name for path in events} >= {"train", "captions"}
    photos = [photo.path for photo in sample_photos[1]]
    again = Captioner.from_preset(folder / "captioner")
    assert again.caption(photos) == captioner.caption(photos)


# A stopped fit leaves Keras' CSV log open, as a kill does.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_stopped_run_goes_on_as_if_it_had_not_stopped(
    finished, sample_photos, tiny_settings, tmp_path, stop_at
):
    settings = tiny_settings.replace(checkpoint_steps=3)
    with pytest.raises(KeyboardInterrupt):
        run(sample_photos, settings, tmp_path, callbacks=[stop_at(7)])
    assert int(load_last(tmp_path / "checkpoints").optimizer.iterations) == 6
    captioner = run(sample_photos, settings, tmp_path)
    _, untouched = finished
    assert int(captioner.model.optimizer.iterations) == int(
        untouched.model.optimizer.iterations
    )
    for one, other in zip(
        captioner.model.trainable_weights,
        untouched.model.trainable_weights,
        strict=True,
    ):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one),
            keras.ops.convert_to_numpy(other),
            atol=1e-4,
        )


def test_finished_run_is_not_trained_further(
    finished, sample_photos, tiny_settings
):
    folder, first = finished
    second = run(sample_photos, tiny_settings, folder)
    assert int(first.model.optimizer.iterations) == int(
        second.model.optimizer.iterations
    )


def test_folder_of_another_run_is_refused(tiny_settings, tmp_path):
    training.check_run_folder(tmp_path, tiny_settings)
    tiny_settings.save(tmp_path / "settings.json")
    training.check_run_folder(tmp_path, tiny_settings)
    other = tiny_settings.replace(learning_rate=0.5)
    with pytest.raises(InputError, match=r"`learning_rate` is 0\.001 there"):
        training.check_run_folder(tmp_path, other)


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_steps": 7},
        {"keep_checkpoints": 9},
        {"passes": 1},
        {"concept_weight": 0.5},
    ],
)
def test_run_goes_on_with_other_checkpoints_and_decoding(
    tiny_settings, tmp_path, change
):
    tiny_settings.save(tmp_path / "settings.json")
    other = tiny_settings.replace(**change)
    training.check_run_folder(tmp_path, other)


def test_finished_run_takes_another_weight_of_concepts(
    finished, sample_photos, tiny_settings, tmp_path
):
    shutil.copytree(finished[0], tmp_path / "run")
    settings = tiny_settings.replace(concept_weight=0.9)
    captioner = run(sample_photos, settings, tmp_path / "run")
    assert captioner.model.concept_weight == 0.9
    again = Captioner.from_preset(tmp_path / "run" / "captioner")
    assert again.model.concept_weight == 0.9


def test_epochs_have_as_many_steps_as_asked_whatever_the_captions(
    sample_photos, tiny_settings, tmp_path
):
    """Three epochs of two steps; a checkpoint after the second and the end."""
    settings = tiny_settings.replace(
        epochs=3,
        steps_per_epoch=2,
        bucket_width=0,
        checkpoint_steps=0,
        checkpoint_epochs=2,
    )
    captioner = run(sample_photos, settings, tmp_path)
    assert int(captioner.model.optimizer.iterations) == 6
    found = (tmp_path / "checkpoints").glob("step-*.keras")
    assert sorted(path.stem for path in found) == [
        "step-00000004",
        "step-00000006",
    ]


def test_captions_of_all_lengths_share_one_trace(
    sample_photos, tiny_settings, tmp_path, monkeypatch
):
    traced = []
    step = BimodalMaskedLM.train_step
    monkeypatch.setattr(
        BimodalMaskedLM,
        "train_step",
        lambda model, data: traced.append(data) or step(model, data),
    )
    settings = tiny_settings.replace(bucket_width=0, batch_size=2)
    run(sample_photos, settings, tmp_path)
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
    assert 0 < int(model.optimizer.iterations) < 99999
    assert "step-00099999.keras cannot be loaded" in caplog.text


def test_killed_command_goes_on_to_the_same_number_of_steps(
    tiny_sample, tiny_settings, tmp_path
):
    """The real thing: SIGKILL in mid-epoch, then the same command again."""
    out = tmp_path / "run"
    fields = dataclasses.asdict(tiny_settings)
    small = ("hidden_dim", "embedding_dim", "intermediate_dim", "num_heads")
    command = [
        sys.executable,
        "-c",
        "from bmt_keras.commands import main; main()",
        "train",
        f"--captions={tiny_sample / 'captions_train.json'}",
        f"--images={tiny_sample / 'images' / 'train'}",
        "--val-share=0.25",
        f"--out={out}",
        "--epochs=4",
        "--batch-size=4",
        "--checkpoint-steps=2",
        "--keep-checkpoints=1000",
        *(f"--{name.replace('_', '-')}={fields[name]}" for name in small),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list((out / "checkpoints").glob("step-*.keras")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "captioner").exists()
    subprocess.run(command, check=True, capture_output=True)
    model = load_last(out / "checkpoints")
    steps = int(model.optimizer.iterations)
    with (out / "history.csv").open() as file:
        epochs = [row["epoch"] for row in csv.DictReader(file)]
    assert epochs == ["0", "1", "2", "3"]
    assert steps % 4 == 0
    assert (out / "captioner" / "model.keras").is_file()
    assert (out / "metrics.json").is_file()
