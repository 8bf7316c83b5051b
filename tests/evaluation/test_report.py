import base64
import math
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from bmt_keras.captioner import Caption
from bmt_keras.data.captions import CaptionedImage
from bmt_keras.evaluation import reliability_bins
from bmt_keras.evaluation.report import ReportImage, write_report
from bmt_keras.evaluation.scores import PassesPoint

EVIL = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that tags are balanced; keeps their attributes and the text."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.headings = re.findall(r"<h2[^>]*>([^<]*)", self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def find(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def shown(self, heading):
        """Ids of the images under a heading, in order."""
        _, _, rest = self.source.partition(f">{heading}</h2>")
        found = re.findall(r"Image (\d+), cap", rest.split("</sec")[0])
        return list(map(int, found))


def make_image(
    path,
    number=0,
    *,
    text="a dog",
    tokens=("\u2581a", "\u2581dog"),
    references=("by a person",),
    correct=None,
):
    """An image; the higher its number, the lower CIDEr-D, the surer."""
    caption = Caption(
        text=text,
        score=math.log(0.5),
        tokens=tokens,
        token_scores=(math.log(0.5),) * len(tokens),
        confidences=(1.0, 0.5, 0.25)[: len(tokens)],
        confidence=(number + 1) / 10,
        token_ids=(5,) * len(tokens),
    )
    image = CaptionedImage(number, path, references)
    return ReportImage(image, caption, 8.0 - number, correct)


@pytest.fixture
def paths(tmp_path):
    made = []
    for number in range(8):
        made.append(tmp_path / f"{number}.png")
        pixels = np.full((20, 800, 3), 30 * number, "uint8")
        cv2.imwrite(str(made[-1]), pixels)
    return made


@pytest.fixture
def write(tmp_path):
    def write(images, metrics=None, **options):
        out = tmp_path / "out"
        write_report(out, images, metrics=metrics or {}, **options)
        return Page(out / "report.html")

    return write


def as_images(paths):
    return [make_image(path, place) for place, path in enumerate(paths)]


def test_page_holds_all_sections_and_needs_no_network(write, paths, tmp_path):
    page = write(
        as_images(paths),
        {"cider_d": 1.25},
        bins=reliability_bins([0.9, 0.8], [True, False]),
        passes=[PassesPoint(1, 0.5, 2.0), PassesPoint(2, 1.0, 3.5)],
    )
    assert page.headings == [
        "Scores on 8 images",
        "Length of captions",
        "Confidence",
        "Passes",
        "Best captions",
        "Worst captions",
        "Confident but wrong",
    ]
    addresses = [
        attrs[name]
        for _, attrs in page.tags
        for name in ("src", "href", "srcset")
        if name in attrs
    ]
    assert addresses
    assert all(each.startswith("data:image/") for each in addresses)
    assert not re.search(r"https?://|url\(", page.source)
    assert not page.find("script")
    files = [path.name for path in (tmp_path / "out").iterdir()]
    assert files == ["report.html"]


def test_scores_stand_in_a_table_with_their_meaning(write, paths):
    metrics = {"cider_d": 1.25, "novel": 1.0, "vocabulary_used": 57.0}
    page = write(as_images(paths), {**metrics, "num_images": 8})
    text = " ".join(page.text)
    assert "cider_d 1.250 telling" in text
    assert "novel 1.000 share" in text
    assert "vocabulary_used 57 different" in text
    assert "num_images 8 images" in text


def test_pictures_are_embedded_small_and_described(write, paths):
    images = write(as_images(paths)).find("img")
    assert all(image["alt"] for image in images)
    image = next(i for i in images if "image/jpeg" in i["src"])
    assert image["alt"] == "Image 0, captioned: a dog"
    content = base64.b64decode(image["src"].partition(",")[2])
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (9, 360, 3)


def test_text_of_users_is_escaped_everywhere(write, paths):
    evil = make_image(
        paths[0],
        text=EVIL,
        tokens=(EVIL,),
        references=(EVIL, "half a character: \ud800"),
    )
    page = write([evil], {EVIL: 1.0})
    assert not page.find("script")
    assert "<script" not in page.source
    assert "alert('x')" not in page.source
    # The score; caption, token and reference among the best and the worst.
    assert page.text.count(EVIL) == 1 + 2 * 3
    alts = [image["alt"] for image in page.find("img")]
    assert f"Image 0, captioned: {EVIL}" in alts


def test_images_are_chosen_by_score_and_confidence(write, paths):
    page = write(as_images(paths)[::-1])
    assert page.shown("Best captions") == [0, 1, 2, 3, 4, 5]
    assert page.shown("Worst captions") == [7, 6, 5, 4, 3, 2]
    # The lowest quarter is 6 and 7, of which 7 is the surest.
    assert page.shown("Confident but wrong") == [7, 6]
    assert "captions with the lowest CIDEr-D" in page.source


def test_known_truth_tells_which_captions_are_wrong(write, paths):
    page = write(
        [
            make_image(path, place, correct=place not in (1, 4))
            for place, path in enumerate(paths)
        ]
    )
    assert page.shown("Confident but wrong") == [4, 1]
    assert "captions that are not true" in page.source


def test_tokens_are_shaded_by_confidence(write, paths):
    tokens = ("\u2581a", "\u2581dog", "s")
    spans = write([make_image(paths[0], tokens=tokens)]).find("span")[:3]
    assert [span["title"] for span in spans] == ["1.00", "0.50", "0.25"]
    opacities = [span["style"].split(",")[-1] for span in spans]
    assert opacities == ["0.00)", "0.40)", "0.60)"]


def test_sections_without_data_are_left_out(write, paths):
    page = write([make_image(paths[0], text="")], bins=reliability_bins([], []))
    assert page.headings == [
        "Scores on 1 images",
        "Length of captions",
        "Best captions",
        "Worst captions",
    ]
    assert "(no caption)" in page.source


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_image_that_cannot_be_read_is_told(write, tmp_path, content):
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    assert "The image cannot be read." in write([make_image(path)]).text
