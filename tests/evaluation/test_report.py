import base64
import dataclasses
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from bmt_keras.evaluation import reliability_bins
from bmt_keras.evaluation.model_metrics import PassesPoint
from bmt_keras.evaluation.report import (
    ReportData,
    ReportImage,
    write_report,
)

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


@pytest.fixture
def photos(tmp_path):
    """Eight photos of falling CIDEr-D and rising confidence."""
    made = []
    for place in range(8):
        path = tmp_path / f"{place}.png"
        cv2.imwrite(str(path), np.full((20, 800, 3), 30 * place, "uint8"))
        made.append(
            ReportImage(
                image_id=place,
                path=path,
                caption=f"caption number {place}",
                tokens=("\u2581caption", "\u2581number", f"\u2581{place}"),
                token_scores=(0.0, math.log(0.5), math.log(0.25)),
                score=math.log((place + 1) / 10),
                references=("by a person",),
                cider_d=8.0 - place,
            )
        )
    return made


def write(folder, photos, **changes):
    return Page(write_report(folder, ReportData("Title", photos, **changes)))


def shown(page, heading):
    """Ids of the photos under a heading, in order."""
    _, _, rest = page.source.partition(f">{heading}</h2>")
    return list(
        map(int, re.findall(r"Photo (\d+),? cap", rest.split("</sec")[0]))
    )


def test_page_holds_all_sections_and_needs_no_network(tmp_path, photos):
    page = write(
        tmp_path / "out",
        photos,
        scores={
            "model": {"cider_d": 1.25, "novel": 1.0},
            "b": {"cider_d": 0.5},
        },
        calibration={"tokens": reliability_bins([0.9, 0.8], [True, False])},
        passes=[PassesPoint(2, 1.0, 3.5), PassesPoint(1, 0.5, 2.0)],
        facts={"data": "val"},
    )
    headings = re.findall(r"<h2[^>]*>([^<]*)", page.source)
    assert headings == [
        "Scores",
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
    assert "http://" not in page.source
    assert "https://" not in page.source
    assert "url(" not in page.source
    assert not page.find("script")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [
        "report.html"
    ]


def test_scores_stand_in_a_table_with_gaps(tmp_path, photos):
    page = write(
        tmp_path,
        photos,
        scores={
            "model": {"cider_d": 1.25, "novel": 1.0, "vocabulary_used": 57.0},
            "baseline": {"cider_d": 0.5, "num_images": 8},
        },
    )
    text = " ".join(page.text)
    assert "cider_d 1.250 0.500 telling" in text
    assert "novel 1.000 \u2013 share" in text
    assert "vocabulary_used 57 \u2013 different" in text
    assert "num_images \u2013 8 images" in text


def test_pictures_are_embedded_small_and_described(tmp_path, photos):
    page = write(tmp_path, photos)
    images = page.find("img")
    assert all(image["alt"] for image in images)
    image = next(i for i in images if "image/jpeg" in i["src"])
    assert image["alt"] == "Photo 0, captioned: caption number 0"
    content = base64.b64decode(image["src"].partition(",")[2])
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (9, 360, 3)


def test_text_of_users_is_escaped_everywhere(tmp_path, photos):
    evil = dataclasses.replace(
        photos[0],
        caption=EVIL,
        tokens=(EVIL,),
        token_scores=(-1.0,),
        references=(EVIL, "half a character: \ud800"),
    )
    path = write_report(
        tmp_path,
        ReportData(
            EVIL,
            [evil],
            scores={EVIL: {EVIL: 1.0}},
            calibration={"$a$": reliability_bins([0.5], [1])},
            facts={EVIL: EVIL},
        ),
    )
    page = Page(path)
    assert not page.find("script")
    assert "<script" not in page.source
    assert "alert('x')" not in page.source
    # Title and heading, row and column; caption, token and reference among
    # both the best and the worst.
    assert page.text.count(EVIL) == 2 + 2 + 2 * 3
    alts = [image["alt"] for image in page.find("img")]
    assert f"Photo 0, captioned: {EVIL}" in alts


def test_photos_are_chosen_by_score_and_confidence(tmp_path, photos):
    path = write_report(tmp_path, ReportData("T", photos[::-1]), shown=3)
    page = Page(path)
    assert shown(page, "Best captions") == [0, 1, 2]
    assert shown(page, "Worst captions") == [7, 6, 5]
    # The lowest quarter is 6 and 7, of which 7 is the surest.
    assert shown(page, "Confident but wrong") == [7, 6]


def test_known_truth_tells_which_captions_are_wrong(tmp_path, photos):
    known = [
        dataclasses.replace(photo, correct=photo.image_id not in (1, 4))
        for photo in photos
    ]
    page = write(tmp_path, known)
    assert shown(page, "Confident but wrong") == [4, 1]
    assert "captions that are not true" in page.source


def test_tokens_are_shaded_by_confidence(tmp_path, photos):
    spans = write(tmp_path, photos[:1]).find("span")[:3]
    assert [span["title"] for span in spans] == ["1.00", "0.50", "0.25"]
    opacities = [span["style"].split(",")[-1] for span in spans]
    assert opacities == ["0.00)", "0.40)", "0.60)"]


def test_sections_without_data_are_left_out(tmp_path, photos):
    page = write(
        tmp_path,
        [dataclasses.replace(photos[0], references=(), caption="")],
        calibration={"tokens": reliability_bins([], [])},
    )
    headings = re.findall(r"<h2[^>]*>([^<]*)", page.source)
    assert headings == ["Length of captions", "Best captions", "Worst captions"]
    assert "(no caption)" in page.source


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_photo_that_cannot_be_read_is_told(tmp_path, photos, content):
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    page = write(tmp_path, [dataclasses.replace(photos[0], path=path)])
    assert "The photo cannot be read." in page.text


def test_what_a_report_cannot_tell_is_refused(tmp_path, photos):
    with pytest.raises(ValueError, match="must hold an image"):
        write(tmp_path / "out", [])
    with pytest.raises(ValueError, match="`shown` must be at least 1"):
        write_report(tmp_path / "out", ReportData("T", photos), shown=0)
    with pytest.raises(ValueError, match="0 scores, 3 tokens"):
        dataclasses.replace(photos[0], token_scores=())
    assert not (tmp_path / "out").exists()


def test_report_loads_neither_pyplot_nor_tensorflow():
    code = (
        "import sys, bmt_keras.evaluation.report\n"
        "print({'matplotlib.pyplot', 'tensorflow'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "set()\n"
