import pytest

from bmt_keras import progress
from bmt_keras.progress import show_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets by hand, in seconds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_each_part_ends_with_a_line(capsys, clock):
    with show_progress("Reading images") as show:
        clock[0] += 2.0
        show("train", 2, 4)
        clock[0] += 2.0
        show("train", 4, 4)
        clock[0] += 5.0
        show("val", 2, 2)
    assert capsys.readouterr() == (
        "",
        "Reading images (train): 4 of 4, 0:00:00 left, 1.0/s\n"
        "Reading images (val): 2 of 2, 0:00:00 left, 0.4/s\n",
    )


def test_without_a_terminal_a_line_is_printed_now_and_then(capsys, clock):
    with show_progress("Working") as show:
        for done in range(1, 21):
            clock[0] += 0.75
            show("", done, 100)
    line = "Working: 20 of 100, 0:01:00 left, 1.3/s\n"
    assert capsys.readouterr().err == line


def test_terminal_has_a_bar_per_part(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes it for one
    with show_progress("Working") as show:
        show("train", 3, 3)
        show("", 1, 2)
        print("a result")
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert "Working (train)" in err
    assert "3/3" in err
    assert "1/2" in err
