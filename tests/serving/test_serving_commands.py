"""The commands serve and request, through their command line."""

import os
import signal
import subprocess
import sys
import threading

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


def test_missing_photo_is_told_in_a_sentence(ask, tmp_path):
    result = ask(tmp_path / "nowhere.jpg")
    assert isinstance(result.exception, ServingError)
    assert "nowhere.jpg" in str(result.exception)


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
