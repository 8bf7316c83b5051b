"""JSON as text, taken apart without building its values.

Python's own parser recurses, holds up every other thread until it is done, and
makes an object of each number. Here thousands of values are one step of a loop
that can be ended.
"""

import json
import math
import re
from collections.abc import Iterator

from .run_pool import Limits
from .status import StatusError, invalid

_STRING = r'"(?:[^"\\\x00-\x1f]++|\\.)*+"'
_NUMBER = r"-?[0-9][-+.0-9eE]*+"
_BASE64 = rf'\{{\s*+"b64"\s*+:\s*+{_STRING}\s*+\}}'
_ATOM = f"(?:{_NUMBER}|{_STRING}|true|false|null|NaN|-?Infinity|{_BASE64})"
# Lists and objects of few atoms are passed at once.
_LIST = rf"\[\s*+{_ATOM}\s*+(?:,\s*+{_ATOM}\s*+){{0,99}}+\]"
_MEMBER = rf"\s*+{_STRING}\s*+:\s*+(?:{_ATOM}|{_LIST})\s*+"
_VALUE = rf"(?:{_ATOM}|{_LIST}|\{{{_MEMBER}(?:,{_MEMBER}){{0,99}}+\}})"


def _compile(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode(), re.DOTALL)


ATOM = _compile(_ATOM)
EMPTY = _compile(r"\[\s*+\]|\{\s*+\}")
# An object, but not {"b64": "..."}, which is a string.
NAMED = _compile(rf"\s*+(?!{_BASE64})\{{")
# Of such pieces consist arrays of atoms; what begins another value is a group.
PIECE = _compile(rf"(?:[\[\],\s]++|{_ATOM}){{1,9999}}+|(.)")
_FIRST = _compile(rf"{_VALUE}|([\[{{])")
_TOKEN = _compile(
    rf"(?:\s*+{_VALUE}\s*+,){{1,999}}+|([\[{{])|([\]}}])|[,:\s]++|{_ATOM}"
)
# What is before a value in an object or a list, and what is behind it.
_BEFORE = _compile(rf"\s*+({_STRING})\s*+:\s*+"), _compile(r"\s*+()")
_BEHIND = _compile(r"\s*+(?:(,)|\})"), _compile(r"\s*+(?:(,)|\])")
# Of a number that may be too large for a double.
_LARGE = _compile(r"[eE]\+?[0-9]{3}|[0-9]{309}")
_STRINGS, _NUMBERS = _compile(_STRING), _compile(_NUMBER)


def find_children(text: bytes, limits: Limits) -> Iterator[tuple[str, bytes]]:
    """Yields name and text of each value in an object, or in a list.

    In a list the names are empty. What follows the object is ignored.

    Raises:
        StatusError: If the text is no JSON, or if the call is to end.
    """
    if EMPTY.match(text):
        return
    pos, in_list = 1, text.startswith(b"[")
    while True:
        before = _match(_BEFORE[in_list], text, pos)
        end = find_end(text, before.end(), limits)
        name = before[1].decode()
        # Most names are read without the parser.
        yield (
            json.loads(name) if "\\" in name else name[1:-1],
            text[before.end() : end],
        )
        mark = _match(_BEHIND[in_list], text, end)
        if not mark[1]:
            return
        pos = mark.end()


def find_end(text: bytes, pos: int, limits: Limits) -> int:
    """Returns where the value at a place ends; errors as `find_children`.

    Of what is inside it, tokens are checked and brackets are counted.
    """
    depth = 0
    while True:
        limits.check()
        token = _match(_TOKEN if depth else _FIRST, text, pos)
        if _LARGE.search(token[0]):
            numbers = _NUMBERS.findall(_STRINGS.sub(b"", token[0]))
            if any(math.isinf(float(number)) for number in numbers):
                raise _parse_error("Number too big to be stored in double.")
        depth += {None: 0, 1: 1, 2: -1}[token.lastindex]
        pos = token.end()
        if not depth:
            return pos


def _match(
    pattern: re.Pattern[bytes], text: bytes, pos: int
) -> re.Match[bytes]:
    match = pattern.match(text, pos)
    if match is None:
        raise _parse_error(f"Invalid value. at offset: {pos}")
    return match


def _parse_error(reason: str) -> StatusError:
    return invalid(f"JSON Parse error: {reason}")
