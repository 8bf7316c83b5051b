"""The commands serve and request, through their command line."""

import os
import signal
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bmt_keras.commands.request import request
from bmt_keras.commands.serve import serve
from bmt_keras.serving.errors import ServingError
from bmt_keras.serving.server import EmbeddedServer

app = typer.Typer()
app.command("serve")(serve)
app.command("request")(request)


@pytest.fixture
def photos(tmp_path):
    paths = []
    for index in range(18):
        paths.append(tmp_path / f"{index}.jpg")
        paths[-1].write_bytes(b"p" * (index + 1))
    return paths


@pytest.fixture
def ask(captioner_server):
    def run(*paths):
        target = f"127.0.0.1:{captioner_server.port}"
        arguments = ["request", "--server", target, *map(str, paths)]
        return CliRunner().invoke(app, arguments)

    return run


def test_one_photo_prints_its_caption_alone(ask, photos):
    result = ask(photos[4])
    assert (result.exit_code, result.stdout) == (0, "a photo of 5 bytes\n")


def test_several_photos_print_a_line_each(ask, photos):
    result = ask(*photos)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{path}\ta photo of {size} bytes"
        for size, path in enumerate(photos, start=1)
    ]


def test_bad_photo_goes_to_stderr_and_fails_at_the_end(ask, photos, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"BAD")
    result = ask(bad, photos[0])
    assert result.exit_code == 1
    assert result.stderr == f"{bad}: Unknown image file format\n"
    assert result.stdout == f"{photos[0]}\ta photo of 1 bytes\n"


def test_missing_photo_goes_to_stderr(ask, tmp_path):
    result = ask(tmp_path / "nowhere.jpg")
    assert result.exit_code == 1
    assert "nowhere.jpg: No such file" in result.stderr


def test_folder_prints_a_line_a_photo(ask, photos, tmp_path):
    result = ask("--progress", "--concurrency", 2, tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{path}\ta photo of {int(path.stem) + 1} bytes"
        for path in sorted(photos)
    ]
    assert result.stderr.startswith("Captioning: 18 of 18, ")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "1.jpg").write_bytes(b"1")
    line = f"{alone / '1.jpg'}\ta photo of 1 bytes\n"
    assert ask(alone).stdout == line


def test_large_photo_is_shrunk_when_asked(ask, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    photo = tmp_path / "large.png"
    cv2.imwrite(str(photo), noise)
    refused = ask(photo, "--max-message-mb", 1)
    assert "must have at most" in refused.stderr
    shrunk = ask(photo, "--max-message-mb", 1, "--shrink")
    assert shrunk.stdout.startswith("a photo of ")


def test_version_length_and_tls_reach_the_server(ask, photos, tmp_path):
    assert ask(photos[0], "--version", 3).exit_code == 0
    assert "Specific(bmt, 4)" in str(ask(photos[0], "--version", 4).exception)
    labelled = ask(photos[0], "--label", "canary")
    assert "version label: canary" in str(labelled.exception)
    assert ask(photos[0], "--version", 3, "--label", "a").exit_code == 2
    lengthy = ask(photos[0], "--length", 7)
    assert "caption_with_length" in str(lengthy.exception)
    for options in (["--tls"], ["--server-name", "captions.test"]):
        encrypted = ask(photos[0], *options)
        assert "No server answers" in str(encrypted.exception)
    halved = ask(photos[0], "--key", tmp_path / "own.key")
    assert "must be given together" in str(halved.exception)
    unread = ask(photos[0], "--ca", tmp_path / "nowhere.pem")
    assert "nowhere.pem" in str(unread.exception)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_announces_itself_and_stops_on_signal(
    captioner_path, monkeypatch, number
):
    handler = signal.getsignal(number)
    wait = EmbeddedServer.wait
    waits = []

    def wait_for_signal(server, timeout):
        if not waits:
            threading.Timer(0.1, os.kill, [os.getpid(), number]).start()
        waits.append(timeout)
        wait(server, timeout)

    monkeypatch.setattr(EmbeddedServer, "wait", wait_for_signal)
    result = CliRunner().invoke(
        app, ["serve", "--models", str(captioner_path), "--port", "0"]
    )
    assert result.exit_code == 0
    assert result.stdout.startswith("Serving bmt version 3 at 127.0.0.1:")
    assert int(result.stdout.rsplit(":", maxsplit=1)[1]) > 0
    assert signal.getsignal(number) is handler


def test_serve_without_a_model_is_a_serving_error(tmp_path):
    models = tmp_path / "nowhere"
    result = CliRunner().invoke(app, ["serve", "--models", str(models)])
    assert isinstance(result.exception, ServingError)


def test_commands_import_no_tensorflow():
    code = (
        "import sys, bmt_keras.commands.serve, bmt_keras.commands.request;"
        "assert not {'tensorflow', 'grpc', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
