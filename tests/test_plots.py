import csv
import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from bmt_keras.errors import InputError
from bmt_keras.plots import draw_caption_grid, plot_history

COLUMNS = ["epoch", "loss", "masked_accuracy", "val_loss", "learning_rate"]
ROWS = [[0, 8.0, 0.1, 7.5, 0.001], [1, 6.0, 0.2, "NA", 0.001]]


@pytest.fixture
def figures(monkeypatch):
    """Every figure that the test saves."""
    saved = []
    savefig = Figure.savefig

    def record(figure, *args, **kwargs):
        saved.append(figure)
        savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record)
    return saved


def write_log(path, columns=COLUMNS, rows=ROWS):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def make_pictures(*shapes):
    generator = np.random.default_rng(0)
    return [
        generator.integers(0, 256, (*shape, 3), dtype="uint8")
        for shape in shapes
    ]


# === Training curves ===


def test_history_is_drawn_by_epoch_from_one(tmp_path, figures):
    png = tmp_path / "history.png"
    plot_history(write_log(tmp_path / "log.csv"), png)
    loss, accuracy = figures[0].axes
    assert loss.get_ylabel() == "loss (nats a masked token)"
    assert [line.get_label() for line in loss.lines] == ["train", "validation"]
    train, validation = (line.get_xydata() for line in loss.lines)
    np.testing.assert_array_equal(train, [[1, 8.0], [2, 6.0]])
    np.testing.assert_array_equal(validation, [[1, 7.5], [2, np.nan]])
    assert accuracy.get_ylabel() == "accuracy (share of masked tokens)"
    (line,) = accuracy.lines
    np.testing.assert_array_equal(line.get_xydata(), [[1, 0.1], [2, 0.2]])
    assert cv2.imread(str(png)).std() > 0


def test_one_epoch_is_enough(tmp_path):
    png = tmp_path / "history.png"
    plot_history(write_log(tmp_path / "log.csv", rows=ROWS[:1]), png)
    assert cv2.imread(str(png)) is not None


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (["epoch", "loss"], [[0, 1.0]], "log.csv.*Found: epoch, loss"),
        ([], [], "Found: none"),
        (COLUMNS, [], "at least one epoch"),
        (COLUMNS, [ROWS[0], [1, "x", 0, 0, 0]], "line 3: expected a.*'x'"),
        (COLUMNS, [[0, 1.0]], "line 2: expected a number. Found: None"),
    ],
)
def test_bad_logs_are_refused(tmp_path, columns, rows, message):
    log = write_log(tmp_path / "log.csv", columns, rows)
    with pytest.raises(InputError, match=message):
        plot_history(log, tmp_path / "history.png")
    assert list(tmp_path.iterdir()) == [log]


# === Photos with captions ===


def test_grid_holds_every_picture_and_word(tmp_path, figures):
    pictures = make_pictures((8, 12), (12, 8), (10, 10))
    captions = ["a dog on the grass " * 3, "costs $5 and $10", ""]
    notes = ["", "0.75", "a reference"]
    png = tmp_path / "grid.png"
    draw_caption_grid(pictures, captions, png, columns=2, notes=notes)
    (figure,) = figures
    shown = [axes.images[0].get_array() for axes in figure.axes]
    for picture, drawn in zip(pictures, shown, strict=True):
        np.testing.assert_array_equal(drawn, picture)
    words = " ".join(text.get_text() for text in figure.texts).split()
    assert words == f"{captions[0]} {captions[1]} 0.75 a reference".split()
    assert cv2.imread(str(png)) is not None


def test_texts_of_twelve_words_overlap_nothing(tmp_path, figures):
    pictures = make_pictures(*[(9, 12), (12, 9), (10, 10), (4, 16), (8, 8)])
    caption = "a young woman in a blue shirt throwing a frisbee outside today"
    captions = [caption] * 5
    draw_caption_grid(
        pictures, captions, tmp_path / "g.png", columns=3, notes=captions
    )
    (figure,) = figures
    boxes = [
        artist.get_window_extent() for artist in [*figure.texts, *figure.axes]
    ]
    width, height = figure.canvas.get_width_height()
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        # A hair of slack: letters reach into the space between lines.
        assert not any(
            box.x0 < other.x1
            and other.x0 < box.x1
            and box.y0 + 1 < other.y1
            and other.y0 + 1 < box.y1
            for other in boxes[:i]
        )


def test_fewer_pictures_than_columns_make_a_narrow_figure(tmp_path):
    widths = []
    for count in (1, 2):
        png = tmp_path / f"{count}.png"
        draw_caption_grid(make_pictures(*[(8, 8)] * count), ["a"] * count, png)
        widths.append(cv2.imread(str(png)).shape[1])
    assert widths == [432, 828]  # 120 dots an inch, 3.6 and 6.9 inches


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": 0}, "`columns` must be at least 1"),
        ({"pictures": [], "captions": []}, "`pictures` must hold"),
        ({"captions": ["a", "b"]}, "`captions` must hold.*2 texts, 1 pictures"),
        ({"notes": []}, "`notes` must hold.*0 texts, 1 pictures"),
        ({"pictures": [np.zeros((4, 4), "uint8")]}, r"uint8 of shape \(4, 4\)"),
        ({"pictures": [np.zeros((4, 4, 3))]}, "Received: float64"),
    ],
)
def test_grids_that_do_not_fit_are_refused(tmp_path, changes, message):
    arguments = {"pictures": make_pictures((4, 4)), "captions": ["a"]} | changes
    with pytest.raises(ValueError, match=message):
        draw_caption_grid(png_path=tmp_path / "grid.png", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_plots_do_not_load_pyplot():
    code = (
        "import sys, bmt_keras.plots\nprint('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"
