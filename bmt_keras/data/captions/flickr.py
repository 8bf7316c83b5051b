"""Flickr8k's `token.txt` and Flickr30k's `results.csv`."""

import io
import re
from collections.abc import Iterator

from bmt_keras.data.captions.rows import Faults, Record

# `name.jpg#0<TAB>caption`; a few names of Flickr8k end in `.jpg.1`.
TOKEN = re.compile(r"([^\t]+?\.\w+(?:\.\d+)?)(?:#\d+)?\t(.*)")
# `name.jpg| 0| caption`; one row of Flickr30k lacks its second bar.
RESULT = re.compile(r"([^|]+)\|\s*\d+\s*\|?(.*)")
HEADER = re.compile(r"image_name\s*\|\s*comment_number\s*\|\s*comment")


def read_records(
    text: str, pattern: re.Pattern[str], faults: Faults
) -> Iterator[Record]:
    """Gives the lines of a pattern, after the header, if any."""
    for number, line in enumerate(map(str.strip, io.StringIO(text)), 1):
        if match := pattern.fullmatch(line):
            record = {"file_name": match[1], "caption": match[2]}
            yield f"line {number}", record
        elif line and not HEADER.fullmatch(line):
            faults.add(f"line {number}", "a file name and a caption", line)
