"""A page of HTML that needs nothing but itself.

No script, no style sheet, no font and no picture is fetched: pictures are
written into the page, and its content security policy forbids the rest. All
text is escaped here, so that callers pass captions as people wrote them.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f6f4; color: #1c1c1c;
  font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; overflow-wrap: anywhere; }
section { margin: 2.5rem 0; }
img { display: block; max-width: 100%; height: auto; }
figure { margin: 1rem 0; max-width: 38rem; }
figure img { background: #fff; border-radius: .4rem; }
figcaption, .note { color: #555; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; background: #fff; }
caption { text-align: left; color: #555; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd;
  text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.cards { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
article { background: #fff; border-radius: .4rem; overflow: hidden; }
article > div { padding: .6rem .9rem; overflow-wrap: anywhere; }
article img { width: 100%; }
article h3 { margin: 0; font-size: 1.05rem; }
article p { margin: .4rem 0; }
article ul { margin: .3rem 0; padding-left: 1.2rem; font-size: .9rem; }
.tokens span { white-space: pre-wrap; border-radius: .2rem; }
"""


def render_page(title: str, sections: Sequence[str]) -> str:
    """Joins sections to a page.

    Args:
        title: Plain text.
        sections: HTML of `render_section`.

    Returns:
        The whole document.
    """
    document = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )
    # JSON may hold half a character, which UTF-8 cannot.
    return document.encode("utf-8", "replace").decode("utf-8")


def render_section(heading: str, content: Sequence[str], note: str = "") -> str:
    """Puts content under a heading.

    Args:
        heading: Plain text, one of its kind on the page.
        content: HTML.
        note: Plain text that says how to read the content.

    Returns:
        HTML.
    """
    name = "-".join(escape(heading).lower().split())
    lines = [
        f'<section aria-labelledby="{name}">',
        f'<h2 id="{name}">{escape(heading)}</h2>',
    ]
    if note:
        lines.append(f'<p class="note">{escape(note)}</p>')
    return "\n".join([*lines, *content, "</section>"])


def render_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
    *,
    caption: str,
) -> str:
    """Draws a table whose first column names the rows.

    Args:
        columns: Names of the columns.
        rows: Cells: plain text, numbers, or None where there is nothing.
        caption: Plain text over the table.

    Returns:
        HTML. A wide table scrolls by itself, not with the page.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = [
        f'<div class="scroll" role="region" tabindex="0" '
        f'aria-label="{escape(caption)}">',
        f"<table><caption>{escape(caption)}</caption>",
        f"<thead><tr>{head}</tr></thead>\n<tbody>",
    ]
    for first, *others in rows:
        cells = "".join(map(_render_cell, others))
        name = escape(format_cell(first))
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


def render_chart(png: bytes, *, alt: str, caption: str) -> str:
    """Writes a chart into the page.

    Args:
        png: The PNG file.
        alt: Plain text that says what the chart shows.
        caption: Plain text beneath it.

    Returns:
        HTML.
    """
    return (
        f'<figure><img src="{to_data_url(png, "image/png")}" '
        f'alt="{escape(alt)}">\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def render_facts(facts: Mapping[str, str]) -> str:
    """Draws names and values, both plain text, as a list in HTML."""
    items = "".join(
        f"<li><strong>{escape(name)}:</strong> {escape(value)}</li>"
        for name, value in facts.items()
    )
    return f"<ul>{items}</ul>"


def to_data_url(content: bytes, media_type: str) -> str:
    """Returns a picture as an address that holds the picture itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def format_cell(value: str | float | None) -> str:
    """Formats a table's value: whole numbers as such, others to 3 digits."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "\u2013"
    if isinstance(value, str):
        return value
    # A share of 1 keeps its digits, a count of 12 needs none.
    whole = isinstance(value, int) or (value >= 10 and value == int(value))
    return f"{value:.0f}" if whole else f"{value:.3f}"


def _render_cell(value: str | float | None) -> str:
    kind = "" if isinstance(value, str) else ' class="number"'
    return f"<td{kind}>{escape(format_cell(value))}</td>"
