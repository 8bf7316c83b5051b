"""What every command line offers: help, version and completion."""

import os
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import bmt_keras
from bmt_keras.commands import app

COMMANDS = get_command(app).commands
MAIN = """
import sys
from bmt_keras.commands import main
sys.argv[0] = "bmt"
main()
"""


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def show_help(monkeypatch):
    def show(*arguments, columns):
        monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", columns)
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result
        return result.stdout

    return show


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_cut_in_80_columns(show_help, name):
    shown = show_help(name, "--help", columns=80)
    words = set(shown.replace(",", " ").split())
    for option in COMMANDS[name].params:
        if option.param_type_name == "option":
            assert {*option.opts, *option.secondary_opts} <= words
    assert max(map(len, shown.splitlines())) == 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name):
    command = COMMANDS[name]
    assert [x.name for x in command.params if not x.help] == []
    assert "Options:" not in command.help


@pytest.mark.parametrize("name", COMMANDS)
def test_h_is_help(show_help, name):
    shown = show_help(name, "-h", columns=100)
    assert shown == show_help(name, "--help", columns=100)
    assert {"-h", "--help"} <= set(shown.split())
    assert len(shown.splitlines()) <= 120


def test_pipe_has_the_asked_width_or_100_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("TERMINAL_WIDTH", raising=False)
    for environment, width in (({}, 100), ({"COLUMNS": "80"}, 80)):
        lines = run("-h", **environment).stdout.splitlines()
        assert max(map(len, lines)) == width


def test_version_is_one_line():
    result = run("--version")
    line = f"bmt-keras {bmt_keras.__version__}\n"
    assert (result.returncode, result.stdout, result.stderr) == (0, line, "")


def test_shell_completes_commands_and_options():
    for words, completed in (
        ("bmt ca", ["caption"]),
        ("bmt caption --templ", ["--template"]),
    ):
        result = run(
            _BMT_COMPLETE="complete_bash",
            COMP_WORDS=words,
            COMP_CWORD=str(words.count(" ")),
        )
        assert result.stdout.split() == completed, result.stderr
