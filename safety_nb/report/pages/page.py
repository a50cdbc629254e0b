"""The blocks of a self-contained HTML page: knows neither runs nor studies.

A page needs no network: style and figures are inside it, and it forbids itself to load anything, or to run anything but
a script of ours.
A block is a dict with its `kind` and what `report.html.j2` needs to show that kind. All text in it is shown
as text, never as markup, and goes through `visible`; untrusted text that may be long is cut by it before. Writes no
files.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safety_nb.core.text import MOST_CHARACTERS, shortened, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cell:
    """One table cell: its text, how it is set (right, bold, wrapped, as a state), and where it links."""

    text: str
    number: bool = False
    strong: bool = False
    long: bool = False
    state: str = ""
    href: str = ""


def loss_preview(pieces: list[tuple[str, str]]) -> str:
    """A training row as HTML that shows which of its text carries loss, for a notebook.

    Args:
        pieces: Texts, each with its fate: read, learned or cut off.
    """
    from html import escape

    def span(text: str, fate: str) -> str:
        return f'<span style="color: #222; {_FATES[fate]}">{escape(visible(text)[0])}</span>'

    legend = " ".join(span(fate, fate) for fate in _FATES)
    row = "".join(span(text, fate) for text, fate in pieces)
    return f'<p>{legend}</p><pre style="white-space: pre-wrap; line-height: 1.6">{row}</pre>'


_FATES = {
    "read": "background: #eee",
    "learned": "background: #bfe3c6; border-bottom: 2px solid #1b7a34",
    "cut off": "background: #f3c6c0; text-decoration: line-through",
}


def pairs_table(pairs: Mapping, names: Mapping[str, str], code: bool = False) -> dict:
    """Name and value, in the order of `names` first and then as given; nothing there is left out."""
    if not pairs:
        return paragraph("Nothing was recorded.")
    listed = [key for key in names if key in pairs] + [key for key in pairs if key not in names]
    rows = []
    for key in listed:
        name = str(key) if code else names.get(key, str(key).replace("_", " ").capitalize())
        rows.append([Cell(shortened(name, 200)), Cell(value_text(pairs[key], plain=code))])
    return {"kind": "pairs", "rows": rows, "code": code}


def value_text(value: Any, plain: bool = False) -> str:
    """A value for people: thousands separated (unless `plain`), lists joined, None as a dash."""
    if value is None or (isinstance(value, float) and value != value):
        return "—"
    if isinstance(value, bool):
        return "yes" if value and not plain else "no" if not plain else str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {value_text(item, plain)}" for key, item in value.items()) or "—"
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item, plain=True) for item in value) or "—"
    if is_number(value):
        if float(value).is_integer() and abs(value) < 1e15 and not (plain and isinstance(value, float)):
            return str(int(value)) if plain else f"{int(value):,}"
        return f"{value:g}"
    return shortened(value, MOST_CHARACTERS)


def is_number(value: Any) -> bool:
    """Whether a value is a real number; True and False are not."""
    import numbers

    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def seconds_text(seconds: Any) -> str:
    """A duration for people: '1.5 s', '2 min 05 s', '1 h 02 min'; what is no number or nan as a dash."""
    if not is_number(seconds) or seconds != seconds:
        return "—"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def section(title: str, *blocks: dict) -> dict:
    """Blocks under a heading that the page's contents link to."""
    return {"title": title, "id": title.lower().replace(" ", "-"), "blocks": list(blocks)}


def paragraph(text: str) -> dict:
    """A paragraph of plain text."""
    return {"kind": "paragraph", "text": text}


def link(href: str, text: str) -> dict:
    """A paragraph that leads to a file beside the page."""
    return {"kind": "link", "href": href, "text": text}


def bullets(items: list[str]) -> dict:
    """A bulleted list of plain texts."""
    return {"kind": "list", "items": items}


def folded(summary: str, *blocks: dict, warning: str = "") -> dict:
    """Blocks hidden behind `summary`, with a warning beside it, until the reader opens them."""
    return {"kind": "folded", "summary": summary, "warning": warning, "blocks": list(blocks)}


def table(
    head: list[Cell],
    body: list[list[Cell]] | None = None,
    groups: list[tuple[str, list[list[Cell]]]] | None = None,
    caption: str = "",
    pinned: bool = False,
) -> dict:
    """A table; with `groups`, each group of rows stands under a heading of its own.

    `pinned` keeps the first column in view where the table is wider than the screen.
    """
    groups = groups or [("", body or [])]
    return {"kind": "table", "head": head, "groups": groups, "caption": caption, "pinned": pinned}


def drawn(draw, arguments: tuple, size: tuple[float, float], alt: str, caption: str) -> dict:
    """A figure drawn here, apart from pyplot, so that a notebook does not show it a second time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(*arguments, ax=figure.subplots())
    return picture(figure, "", alt, caption)


def picture(figure: "Figure", title: str, alt: str, caption: str) -> dict:
    """A figure as an SVG in a data address: sharp at any width, and cut off from the page around it."""
    import io

    import matplotlib

    buffer = io.BytesIO()
    # Text as paths looks the same on every machine; a fixed salt and no date make the page reproducible.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "safety-nb"}):
        figure.savefig(
            buffer,
            format="svg",
            bbox_inches="tight",
            pad_inches=0.08,
            facecolor="white",
            metadata={"Date": None},
        )
    source = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    width = round(figure.get_size_inches()[0] * 96 * 1.25)  # CSS pixels; a little over its natural size
    return {
        "kind": "figure",
        "title": title,
        "source": source,
        "alt": alt,
        "caption": caption,
        "width": width,
    }


def render(*, script: str = "", **page: Any) -> str:
    """The page as HTML, from what the template asks for: kicker, title, lead, opening, sections and version.

    Args:
        script: name of a file of ours in ``data/`` that the page runs; no other script can run in it.
    """
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return value if hasattr(value, "__html__") else visible(value, limit=None)[0]  # a macro's has been through

    source = (files("safety_nb") / "report" / "pages" / "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, finalize=shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = _unbroken
    own = None
    if script:
        code = (files("safety_nb") / "report" / "pages" / script).read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        own = {"source": Markup(code), "hash": Markup(f"sha256-{digest}")}
    return environment.from_string(source).render(**page, script=own)


def _unbroken(text: str) -> str:
    """Our own prose with figures and their signs on one line: 95 %, N = 300."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bN) (?== \d)|(?<=\bN =) (?=\d)", "\u00a0", text)
