import csv

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bmt_keras.errors import InputError
from bmt_keras.evaluation.plots import (
    draw_caption_grid,
    plot_history,
    read_upright,
)

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


@pytest.fixture
def make_images(tmp_path):
    def make(*shapes):
        generator = np.random.default_rng(0)
        paths = [tmp_path / f"{n}.png" for n in range(len(shapes))]
        for path, shape in zip(paths, shapes, strict=True):
            pixels = generator.integers(0, 256, (*shape, 3), dtype="uint8")
            cv2.imwrite(str(path), pixels)
        return paths

    return make


# === Training curves ===


def test_history_is_drawn_by_epoch_from_one(tmp_path, figures):
    png = tmp_path / "history.png"
    plot_history(write_log(tmp_path / "log.csv"), png)
    loss, accuracy = figures[0].axes
    assert loss.get_ylabel() == "loss (nats per masked token)"
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
        (["epoch", "loss"], [[0, 1.0]], "log.csv: .*Found: epoch, loss;"),
        ([], [], "Found: none;"),
        (COLUMNS, [], "at least one epoch. .*; 0 epochs"),
        (COLUMNS, [ROWS[0], [1, "x", 0, 0, 0]], "log.csv: could not.*: 'x'"),
        (COLUMNS, [[0, 1.0]], "log.csv: could not convert .*: ''"),
    ],
)
def test_bad_logs_are_refused(tmp_path, columns, rows, message):
    log = write_log(tmp_path / "log.csv", columns, rows)
    with pytest.raises(InputError, match=message):
        plot_history(log, tmp_path / "history.png")
    assert list(tmp_path.iterdir()) == [log]


# === Images with captions ===


def test_grid_holds_every_image_and_word(tmp_path, figures, make_images):
    paths = make_images((8, 12), (12, 8), (10, 10))
    captions = ["a dog on the grass " * 3, "costs $5 and $10", ""]
    png = tmp_path / "grid.png"
    draw_caption_grid(paths, captions, png)
    cells = figures[0].subfigs
    for cell, path in zip(cells, paths, strict=True):
        np.testing.assert_array_equal(
            cell.axes[0].images[0].get_array(),
            cv2.imread(str(path))[..., ::-1],
        )
    assert [cell.texts[0].get_text() for cell in cells] == captions
    # A palette makes the file small.
    with Image.open(png) as image:
        assert image.mode == "P"


def test_picture_is_upright_and_on_white(tmp_path):
    stored = np.zeros((4, 6, 4), np.uint8)
    stored[0] = 255, 0, 0, 255  # the first row red, all else transparent
    turn = Image.Exif()
    turn[0x0112] = 6  # to be turned clockwise
    Image.fromarray(stored).save(tmp_path / "a.png", exif=turn)
    expected = np.full((6, 4, 3), 255)
    expected[:, 3] = 255, 0, 0
    seen = read_upright(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(seen), expected)


def test_captions_of_twelve_words_overlap_nothing(
    tmp_path, figures, make_images
):
    images = make_images((9, 12), (12, 9), (10, 10), (4, 16), (8, 8))
    caption = "a young woman in a blue shirt throwing a frisbee outside today"
    draw_caption_grid(images, [caption] * 5, tmp_path / "g.png")
    (figure,) = figures
    boxes = [
        artist.get_window_extent()
        for cell in figure.subfigs[:5]
        for artist in (*cell.texts, *cell.axes)
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


def test_rows_are_of_three_or_four(tmp_path, make_images):
    sizes = []
    for count in (1, 2, 5, 10):
        png = tmp_path / "grid.png"
        draw_caption_grid(make_images(*[(8, 8)] * count), ["a"] * count, png)
        sizes.append(cv2.imread(str(png)).shape[:2])
    # 120 dots per inch; a cell is 3.3 by 3.9 inches.
    assert sizes == [(468, 396), (468, 792), (936, 1188), (1404, 1584)]


@pytest.mark.parametrize(("images", "captions"), [(0, 0), (1, 2)])
def test_grids_that_do_not_fit_are_refused(tmp_path, images, captions):
    message = f"Received: {images} paths, {captions} captions"
    with pytest.raises(ValueError, match=message):
        draw_caption_grid(
            [tmp_path / "a.png"] * images, ["a"] * captions, tmp_path / "g.png"
        )
    assert list(tmp_path.iterdir()) == []
