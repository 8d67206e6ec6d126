"""Pieces of an HTML page that needs nothing from elsewhere, and runs nothing.

What comes from outside (names of files, messages) may hold anything. `text` is the one way for it
into a page: everything here takes plain strings and escapes them, but for what is called `html`.
"""

import base64
import html as standard
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pix2pix

LONGEST = 400  # characters of one text
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # no script, whatever comes
GOOD, FAIR, BAD = "good", "fair", "bad"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1330px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; max-width: 75ch; }
.place, .note { color: #666; font-size: .87rem; overflow-wrap: anywhere; }
.verdict { margin: 1.2rem 0; padding: .7rem 1rem; border-left: 5px solid; font-size: 1.1rem;
  max-width: none; }
.good { border-color: #2a8a4a; background: #eef8f1; }
.fair { border-color: #c98a00; background: #fdf6e3; }
.bad { border-color: #c0392b; background: #fcefed; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.2rem; margin: 1.2rem 0; }
.figures b { display: block; font-size: 1.45rem; font-weight: 600; line-height: 1.25; }
.figures span { color: #666; font-size: .87rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin-bottom: .8rem; }
th, td { padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid #e4e4e4; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
td:first-child:not(.number) { min-width: 11rem; }
th { color: #666; font-weight: 500; white-space: nowrap; overflow-wrap: normal; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(650px, 100%), 1fr));
  gap: 1.4rem 1rem; margin: 1rem 0; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .9rem; overflow-wrap: anywhere; margin-bottom: .4rem; }
.plot { max-width: 100%; height: auto; }
.crops { display: flex; align-items: flex-start; gap: 6px; overflow-x: auto; }
.crops img { flex: none; image-rendering: pixelated; }
.gone { flex: none; box-sizing: border-box; padding: 1rem; background: #f3f3f3; color: #666;
  overflow: hidden; overflow-wrap: anywhere; font-size: .87rem; }
"""


def text(value: object, longest: int = LONGEST) -> str:
    """HTML that shows a value as plain text, whatever it holds.

    Characters that don't show, or that turn the reading direction, come as Python's escapes: a name
    with a line break looks like one, and half a surrogate pair does no harm.

    Args:
        value: anything with a `str`.
        longest: Characters after which it is cut.
    """
    whole = str(value)
    cut = whole if len(whole) <= longest else whole[: longest - 1] + "…"
    seen = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return standard.escape(seen)


def number(value: float | None) -> str:
    """With two digits after the point; nothing where there is none."""
    return "" if value is None else f"{value:,.2f}"


def share(part: float, whole: float) -> str:
    """A part in percent; nothing where there is no whole."""
    return f"{100 * part / whole:.2f}%" if whole else ""


def page(title: str, place: str, verdict: tuple[str, str], parts: Iterable[str]) -> bytes:
    """A whole page, UTF-8.

    Args:
        title: What stands over it.
        place: The URL that it is about.
        verdict: `GOOD`, `FAIR` or `BAD`, and the sentence that answers the reader's question.
        parts: HTML, top to bottom.
    """
    grade, sentence = verdict
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{text(title)}</h1><p class="place">{text(place)}</p>',
        f'<p class="verdict {grade}">{text(sentence)}</p>',
        *parts,
        note(f"Made {moment} by pix2pix {pix2pix.__version__}."),
        "</body></html>\n",
    ]
    return "\n".join(lines).encode()


def section(title: str, *html: str) -> str:
    """A heading and what follows it; nothing where nothing follows."""
    body = "\n".join(filter(None, html))
    return f"<h2>{text(title)}</h2>\n{body}" if body else ""


def note(words: str) -> str:
    """A paragraph in small print."""
    return f'<p class="note">{text(words)}</p>'


def figures(values: Iterable[tuple[str, str]]) -> str:
    """Large figures in a row, each with what it counts."""
    cells = [f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for value, name in values]
    return f'<div class="figures">{"".join(cells)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; nothing without rows.

    Args:
        head: Names of the columns; one that starts with "#" holds numbers, and stands right.
        rows: One value per column.
    """
    kinds = [' class="number"' if name.startswith("#") else "" for name in head]
    lines = [
        "".join(f"<td{kind}>{text(value)}</td>" for kind, value in zip(kinds, row, strict=True))
        for row in rows
    ]
    if not lines:
        return ""
    names = zip(kinds, head, strict=True)
    top = "".join(f"<th{kind}>{text(name.removeprefix('#'))}</th>" for kind, name in names)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n<tr>{top}</tr>\n{body}\n</table></div>'


def plot(png: bytes, about: str) -> str:
    """A picture as wide as the page allows."""
    return f'<img class="plot" alt="{text(about)}" src="{_data(png)}">'


def details(summary: str, *html: str, is_open: bool = True) -> str:
    """What can be folded away under a line."""
    body = "\n".join(html)
    return f"<details{' open' * is_open}><summary>{text(summary)}</summary>\n{body}</details>"


def pairs(pieces: Iterable[str]) -> str:
    """What `crops` returned, as many beside each other as the page is wide."""
    return f'<div class="pairs">{"".join(pieces)}</div>'


def crops(caption: str, pictures: Iterable[bytes | str], side: int) -> str:
    """Pictures side by side, each pixel one of the page; a text stands where there is none."""
    cells = [
        f'<div class="gone" style="width:{side}px">{text(picture)}</div>'
        if isinstance(picture, str)
        else f'<img alt="" src="{_data(picture)}">'
        for picture in pictures
    ]
    body = f'<div class="crops">{"".join(cells)}</div>'
    return f"<figure><figcaption>{text(caption)}</figcaption>{body}</figure>"


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
