"""The commands serve and request, through their command line."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest
import typer
from typer.testing import CliRunner

from bmt_keras import commands
from bmt_keras.commands.request import request
from bmt_keras.commands.serve import serve
from bmt_keras.data.caption_files import Journal
from bmt_keras.errors import InputError
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
def ask(captions):
    def run(*paths):
        arguments = ["request", "--server", captions, *map(str, paths)]
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
    assert result.stderr == f"{bad}: not a photo; received 3 bytes\n"
    assert result.stdout == f"{photos[0]}\ta photo of 1 bytes\n"


def test_missing_photo_goes_to_stderr(ask, tmp_path):
    result = ask(tmp_path / "nowhere.jpg")
    assert result.exit_code == 1
    assert "nowhere.jpg: expected a file that can be read" in result.stderr


def test_folder_prints_a_line_a_photo(ask, photos, tmp_path):
    result = ask("--progress", "--concurrency", 2, tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{path}\ta photo of {int(path.stem) + 1} bytes"
        for path in sorted(photos)
    ]
    assert result.stderr.startswith("Captioning images: 18 of 18, ")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "1.jpg").write_bytes(b"1")
    line = f"{alone / '1.jpg'}\ta photo of 1 bytes\n"
    assert ask(alone).stdout == line


NAMES = [
    "a\tb",
    "c\nd",
    "e\rf\x0bg\x1b[1m",
    "\u2028",
    '"q"',
    "caf\udce9",
    "é é",
]


@pytest.fixture
def odd_photos(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    paths = [folder / f"{name}.jpg" for name in NAMES]
    for size, path in enumerate(paths, start=1):
        path.write_bytes(b"x" * size)
    return dict(zip(map(str, paths), range(1, 9), strict=False))


def test_name_of_any_characters_stays_one_record(ask, odd_photos, tmp_path):
    found = {}
    for line in ask(tmp_path / "odd").stdout.splitlines():
        name, caption = line.split("\t")
        found[json.loads(name) if name[0] == '"' else name] = caption
    assert found == {
        path: f"a photo of {size} bytes" for path, size in odd_photos.items()
    }


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_out_names_every_photo(ask, odd_photos, tmp_path, ending):
    out = tmp_path / f"captions.{ending}"
    bad = tmp_path / "odd" / "z.jpg"
    bad.write_bytes(b"BAD")
    result = ask(tmp_path / "odd", "--out", out)
    assert (result.exit_code, result.stdout) == (1, f"{out}: 7 captions\n")
    with out.open(newline="") as file:
        read = csv.DictReader if ending == "csv" else partial(map, json.loads)
        rows = {row["file"]: row for row in read(file)}
    assert rows.pop(str(bad))["error"] == "not a photo; received 3 bytes"
    if ending == "csv":  # which has no escapes that a reader would undo
        odd_photos = {
            path.encode(errors="backslashreplace").decode(): size
            for path, size in odd_photos.items()
        }
    assert {path: row["caption"] for path, row in rows.items()} == {
        path: f"a photo of {size} bytes" for path, size in odd_photos.items()
    }


def test_stopped_request_goes_on(ask, captions, photos, tmp_path):
    out = tmp_path / "captions.jsonl"
    source = {"server": captions, "name": "bmt", "length": None}
    journal = Journal(out, source | {"version": None, "label": None})
    for index, error in enumerate(["", "too late"]):
        row = {"file": str(photos[index]), "caption": "kept", "error": error}
        journal.append([row])
    refused = ask(*photos, "--out", out, "--version", 3)
    assert "`version` was None, not 3" in str(refused.exception)
    assert ask(*photos, "--out", out).exit_code == 0
    lines = out.read_text().splitlines()
    found = [json.loads(line)["caption"] for line in lines]
    assert found[:3] == ["kept", "a photo of 2 bytes", "a photo of 3 bytes"]
    assert len(found) == 18


def test_attempts_and_backoff_reach_the_client(photos, nowhere):
    arguments = ["request", str(photos[0]), "--server", nowhere]
    arguments += ["--attempts", "2", "--backoff", "0.01"]
    result = CliRunner().invoke(app, arguments)
    assert f"No server answers at {nowhere}" in str(result.exception)


def test_photo_over_the_message_size_is_refused(ask, photos, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(b"x" * 2**20)
    result = ask(large, photos[0], "--max-message-mb", 1)
    assert result.exit_code == 1
    assert result.stdout == f"{photos[0]}\ta photo of 1 bytes\n"
    assert result.stderr.startswith(f"{large}: expected at most 1048")
    assert result.stderr.count(str(large)) == 1


def test_version_length_and_tls_reach_the_server(ask, photos, tmp_path):
    assert ask(photos[0], "--version", 3).exit_code == 0
    assert "Specific(bmt, 4)" in str(ask(photos[0], "--version", 4).exception)
    labelled = ask(photos[0], "--label", "canary")
    assert "version label: canary" in str(labelled.exception)
    lengthy = ask(photos[0], "--length", 7)
    assert "caption_with_length" in str(lengthy.exception)
    for options in (["--tls"], ["--server-name", "captions.test"]):
        encrypted = ask(photos[0], *options)
        assert "speaks no TLS" in str(encrypted.exception)
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


@pytest.fixture
def serve_until_up(monkeypatch):
    """Runs `serve` in this process; it stops once its port is open."""

    def stop_at_once(server, timeout):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(EmbeddedServer, "wait", stop_at_once)

    def run(*arguments):
        return CliRunner().invoke(app, ["serve", "--port", "0", *arguments])

    return run


def test_serve_takes_models_config_and_rest(
    serve_until_up, served_models, captioner_path, tmp_path
):
    config = tmp_path / "models.config"
    config.write_text(
        f"""model_config_list {{
          config {{
            name: "tools" base_path: "{served_models}/half_plus"
            model_platform: "tensorflow" model_version_policy {{ all {{}} }}
          }}
          config {{
            name: "captions" base_path: "{captioner_path}"
            model_platform: "tensorflow"
          }}
        }}"""
    )
    result = serve_until_up(
        *("--model-config-file", str(config), "--rest-port", "0"),
        *("--workers", "2", "--max-calls", "9", "--max-message-mb", "1"),
        *("--poll-seconds", "0", "--drain-seconds", "1", "--rest-cors"),
        *("--config-poll-seconds", "9"),
    )
    assert result.exit_code == 0, result.output
    captions, tools, rest = result.stdout.splitlines()
    assert captions.startswith("Serving captions version 3 at 127.0.0.1:")
    assert tools.startswith("Serving tools version 7, 123 at 127.0.0.1:")
    assert rest.startswith("REST at 127.0.0.1:")


def test_serve_starts_without_models(serve_until_up, tmp_path):
    config = tmp_path / "models.config"
    config.write_text("")
    result = serve_until_up("--model-config-file", str(config))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Serving no model at 127.0.0.1:")


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("--tls-key", "--tls-certificate"),
        ("--tls-certificate", "--tls-key"),
        ("--tls-client-ca", "--tls-certificate"),
    ],
)
def test_half_of_tls_is_bad_input(option, other):
    result = CliRunner().invoke(commands.app, ["serve", option, "a.pem"])
    assert isinstance(result.exception, InputError)
    message = f"`{option}` cannot be given without `{other}`"
    assert message in str(result.exception)


def test_tls_files_reach_the_server(serve_until_up, captioner_path):
    result = serve_until_up(
        *("--models", str(captioner_path)),
        *("--tls-key", "no.key", "--tls-certificate", "no.pem"),
    )
    assert isinstance(result.exception, ServingError)
    assert "Cannot use no.key, no.pem" in str(result.exception)


@pytest.mark.parametrize("package", ["aiohttp", "prometheus_client"])
def test_serve_names_a_package_that_is_missing(captioner_path, package):
    code = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from bmt_keras.commands.serve import serve\n"
        f"serve(models={str(captioner_path)!r}, port=0, rest_port=0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "serve"], stderr=subprocess.PIPE, text=True
    )
    last = result.stderr.splitlines()[-1]
    assert f"`bmt serve` needs {package}: pip install" in last


def test_server_without_rest_needs_no_aiohttp(captioner_path):
    code = (
        "import sys\n"
        "sys.modules['aiohttp'] = None\n"
        "from bmt_keras.serving.server import EmbeddedServer\n"
        f"with EmbeddedServer({str(captioner_path)!r}, port=0): pass"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_serve_without_a_model_is_a_serving_error(tmp_path):
    models = tmp_path / "nowhere"
    result = CliRunner().invoke(app, ["serve", "--models", str(models)])
    assert isinstance(result.exception, ServingError)


def test_commands_import_no_tensorflow():
    code = (
        "import sys, bmt_keras.commands.serve, bmt_keras.commands.request;"
        "import bmt_keras.commands.export, bmt_keras.progress;"
        "assert not {'tensorflow', 'grpc', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
