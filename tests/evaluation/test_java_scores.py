import os
import sys

import pytest

from bmt_keras.errors import InputError
from bmt_keras.evaluation import java_scores, score_with_java

PREDICTIONS = {1: "A dog.", 2: "two cats"}
REFERENCES = {2: ["cats"], 1: ["the caf\u00e9", "a dog"]}

# Speaks as METEOR does: statistics of each caption, then all scores and last
# the score of all. SPICE's command line differs, and fails.
METEOR = f"""#!{sys.executable}
import sys
if "-stdio" not in sys.argv:
    sys.exit("no SPICE here")
sys.stdin.reconfigure(encoding="utf-8")
for line in sys.stdin:
    kind, *parts = line.strip().split(" ||| ")
    if kind == "SCORE":
        print(1 if "caf\\u00e9" in line and parts[-1] == "a dog" else 0)
    else:
        print(*parts, 0.25, sep="\\n")
    sys.stdout.flush()
"""
SLEEPER = "#!/bin/sh\nexec sleep 60\n"


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Puts a program named java before all others, and takes the network."""

    def install(source):
        java = tmp_path / "java"
        java.write_text(source)
        java.chmod(0o755)
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        monkeypatch.setenv("PATH", path)
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")

    return install


def test_without_java_both_are_left_out_with_one_line(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert score_with_java(PREDICTIONS, REFERENCES) == {}
    (line,) = caplog.messages
    assert line.startswith("METEOR and SPICE are left out: they need Java")


def test_score_of_the_java_program_is_read(fake_java, caplog, capfd):
    fake_java(METEOR)
    assert score_with_java(PREDICTIONS, REFERENCES) == {"meteor": 0.25}
    (line,) = caplog.messages
    assert line.startswith("SPICE is left out: it failed: ")
    assert capfd.readouterr() == ("", "")


def test_program_that_says_nothing_is_ended(fake_java, caplog, monkeypatch):
    fake_java(SLEEPER)
    monkeypatch.setattr(java_scores, "_TIMEOUT", 0.5)
    assert score_with_java(PREDICTIONS, REFERENCES) == {}
    assert "METEOR is left out: it took over 0.5 seconds." in caplog.messages


def test_program_that_fails_is_told(fake_java, caplog):
    fake_java("#!/bin/sh\nexit 1\n")
    assert score_with_java(PREDICTIONS, REFERENCES) == {}
    meteor, spice = caplog.messages
    assert meteor.startswith("METEOR is left out: it failed: ")
    assert spice.startswith("SPICE is left out: it failed: ")


def test_photos_that_do_not_fit_are_refused_first(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no reference for image 3"):
        score_with_java({1: "a", 3: "b"}, {1: ["a"]})
