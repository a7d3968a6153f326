"""Pages from simple blocks: the same list as Markdown and as one HTML file.

The HTML needs nothing but itself: pictures are embedded, there is no script,
and a policy in its head keeps a browser from fetching anything. Texts are
plain: names from disk can hold no markup.
"""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluojax.files import write_atomic
from fluojax.report.style import STYLE


@dataclass(frozen=True)
class Heading:
    """A section; level 2 or 3 (the title of the page is level 1)."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Note:
    """What a reader must not miss."""

    text: str


@dataclass(frozen=True)
class Code:
    """Lines to type or to copy."""

    text: str


@dataclass(frozen=True)
class Table:
    """Texts in rows; cells that look like numbers stand to the right.

    Attributes:
      header: names of the columns.
      rows: as many cells each.
      folded: in HTML, shown after a click on this text; "" for always.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
      name: of its file below the folder of the page, e.g. `figures/a.png`.
      png: its bytes.
      text: what it shows; also read out where it cannot be seen.
    """

    name: str
    png: bytes
    text: str


Block = Heading | Paragraph | Note | Code | Table | Figure


def write_pages(folder: Path, title: str, blocks: Sequence[Block]) -> None:
    """`report.md` with its figures, and `report.html`, in a folder."""
    for block in blocks:
        if isinstance(block, Figure):
            write_atomic(folder / block.name, block.png)
    write_atomic(folder / "report.md", to_markdown(title, blocks))
    write_atomic(folder / "report.html", to_html(title, blocks))


# --- Markdown ---------------------------------------------------------------------


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The page as text; figures are referred to by name."""
    parts = [f"# {escape(title)}", *map(_markdown, blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escape(text)}"
        case Paragraph(text):
            return escape(text)
        case Note(text):
            return f"**{escape(text)}**"
        case Code(text):
            return "\n".join(f"    {line}" for line in text.splitlines())
        case Figure(name, _, text):
            return f"![{escape(text)}]({name})\n\n{escape(text)}"
        case Table(header, rows):
            lines = [header, ["---"] * len(header), *rows]
            lines[2:] = [[escape(cell) for cell in row] for row in rows]
            lines[0] = [escape(cell) for cell in header]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Any text as plain text in Markdown, on one line."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"[\\`*\[\]|]", r"\\\g<0>", text)
    # Within a word an underscore means nothing.
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    return " ".join(text.split())


# --- HTML -------------------------------------------------------------------------

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
"""


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The page as one file that opens anywhere; a click enlarges a figure."""
    head = _HEAD.format(title=html.escape(title), style=STYLE)
    body = "\n".join(map(_html, blocks))
    return f"{head}{body}\n</main>\n</body>\n</html>\n"


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Note(text):
            return f'<p class="note">{html.escape(text)}</p>'
        case Code(text):
            return f"<pre>{html.escape(text)}</pre>"
        case Figure(_, png, text):
            return _html_figure(png, html.escape(text))
        case Table(header, rows, folded):
            table = _html_table(header, rows)
            if not folded:
                return table
            summary = f"<summary>{html.escape(folded)}</summary>"
            return f"<details>{summary}{table}</details>"


def _html_figure(png: bytes, text: str) -> str:
    """A hidden box, ticked by a click on the picture, enlarges it by style alone."""
    data = base64.b64encode(png).decode("ascii")
    picture = f'<img src="data:image/png;base64,{data}" alt="{text}">'
    zoom = f'<label><input type="checkbox" aria-label="enlarge"><span>{picture}</span>'
    return f"<figure>{zoom}</label><figcaption>{text}</figcaption></figure>"


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = ["".join(map(_html_cell, row)) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _html_cell(text: str) -> str:
    number = text[:1].isdigit() or (text[:1] in "-+" and text[1:2].isdigit())
    return f"<td{' class=n' if number else ''}>{html.escape(text)}</td>"
