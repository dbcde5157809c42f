"""An HTML page that needs no other file: its style, its script, and sections with an index, the long ones folded."""

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

from fedjax_lite.report.colors import GRID, INK, PAGE, dark_of, on_dark

__all__ = ["Section", "document", "fold", "page"]

SCRIPT = Path(__file__).with_name("page.js")
STYLE = """
:root { color-scheme: light dark; --page: PAGE; --ink: light-dark(#222, #e3e6ea); --quiet: light-dark(#595f66, #a3aab3);
  --rule: light-dark(#ddd, #30363d); --box: light-dark(#f6f7f8, #1d2127); --link: light-dark(#1f57a8, #7ab4f5);
  --bad: light-dark(#b2182b, #ff8f85) }
:root[data-theme=light] { color-scheme: light } :root[data-theme=dark] { color-scheme: dark }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; color: var(--ink); background: var(--page); max-width: 980px; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: 0 } h2 { font-size: 1.1em; margin-top: 2em; border-bottom: 1px solid var(--rule) }
a { color: var(--link) } nav { display: flex; flex-wrap: wrap; gap: .3em 1.2em; margin: 1em 0 } nav a { text-decoration: none }
.tiles { display: flex; flex-wrap: wrap; gap: .6em; margin: 1em 0 }
.tiles div { background: var(--box); border-radius: 6px; padding: .4em .9em }
.tiles dt { font-size: 12px; color: var(--quiet) } .tiles dd { margin: 0; font-size: 1.25em; font-variant-numeric: tabular-nums }
.figures { display: flex; flex-wrap: wrap; gap: 1.5em 1em; margin-top: 1em }
figure { margin: 0; flex: 1 1 420px; max-width: 480px; position: relative }
figure.heat { flex: 0 1 auto; min-width: 220px; max-width: none }
.heat figcaption { padding: 0; overflow-wrap: anywhere } .heat > .csv { position: static }
figcaption { font-weight: 600; padding-right: 3em } small, .legend { font-weight: 400; font-size: 12px; color: var(--quiet) }
.csv { font-size: 11px; text-decoration: none; white-space: nowrap } figure > .csv { position: absolute; top: 3px; right: 8px }
.legend span { margin-right: 1.2em; white-space: nowrap }
.legend b { display: inline-block; width: 30px; height: 8px; margin-right: 5px } .legend svg { display: block; height: 8px }
svg { width: 100%; font-size: 11px; fill: LETTERS } .heat svg { font-variant-numeric: tabular-nums } .grid { stroke: LINES }
table { border-collapse: collapse; margin-bottom: 1em } td, th { padding: 2px 16px 2px 0; text-align: left; vertical-align: top }
td { font-variant-numeric: tabular-nums } th { font-weight: 400; color: var(--quiet); white-space: nowrap }
.sortable th { white-space: normal; vertical-align: bottom } .sortable td { white-space: nowrap }
th[aria-sort] button { all: unset; cursor: pointer } th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" } button:focus-visible { outline: 2px solid var(--link) }
.wide { overflow-x: auto; font-size: 13px } .wide td, .wide th { padding-right: 11px }
details { margin: 1em 0 } summary { cursor: pointer; color: var(--link) }
summary h2 { display: inline-block; margin: 1em 0 0; width: calc(100% - 1.5em); color: var(--ink) }
pre { background: var(--box); padding: .8em; overflow-x: auto } .status { font-weight: 600 } .error { color: var(--bad) }
.readout { position: absolute; pointer-events: none; background: var(--box); border: 1px solid var(--rule); border-radius: 4px;
  font-size: 12px; padding: 2px 7px; line-height: 1.4; white-space: nowrap; z-index: 1 }
.cursor { stroke: var(--quiet); stroke-dasharray: 2 2 } .theme { position: fixed; top: 8px; right: 10px; font-size: 12px; z-index: 2 }
@media print { :root { color-scheme: light !important } nav, .csv, .theme, .readout { display: none } figure, tr { break-inside: avoid }
  details::details-content { content-visibility: visible; block-size: auto } }
"""


class Section(NamedTuple):
    """A part of a page."""

    title: str
    body: str  # HTML; "": there is no such part
    folded: bool = False  # whether a reader has to open it

    @property
    def place(self) -> str:
        """The name of its place in the page."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def page(title: str, head: str, sections: Sequence[Section], closing: str = "") -> str:
    """Write a page of sections, with an index of those that there are.

    Args:
        title: the page's.
        head: HTML above the index.
        sections: in their order; one without a body is left out.
        closing: HTML below all.

    >>> page("x", "", [Section("a b", "<p>so</p>"), Section("c", ""), Section("d", "too")]).count('href="#a-b"')
    1
    """
    there = [section for section in sections if section.body]
    links = "".join(f'<a href="#{each.place}">{escape(each.title)}</a>' for each in there)
    index = f'<nav aria-label="sections">{links}</nav>' if len(there) > 1 else ""
    return document(title, f"{head}{index}{''.join(map(_written, there))}{closing}")


def fold(title: str, body: str, unfolded: bool = True) -> str:
    """Put HTML under a title that folds and unfolds it; "" without HTML.

    >>> fold("numbers", "<p>1</p>", unfolded=False)
    '<details><summary>numbers</summary><p>1</p></details>'
    """
    state = ' open="open"' if unfolded else ""
    return f"<details{state}><summary>{escape(title)}</summary>{body}</details>" if body else ""


def document(title: str, body: str) -> str:
    """Write a page with this project's style and script around a body.

    >>> document("a < b", "<p>so</p>").startswith('<!doctype html><html lang="en"><head><meta charset="utf-8">')
    True
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html><html lang="en"><head>{head}{_looks_and_acts()}</head><body>{body}</body></html>\n'


def _written(section: Section) -> str:
    """Write a section under its heading."""
    heading = f"<h2>{escape(section.title)}</h2>"
    if section.folded:
        return f'<details id="{section.place}"><summary>{heading}</summary>{section.body}</details>'
    return f'<section id="{section.place}">{heading}{section.body}</section>'


@cache
def _looks_and_acts() -> str:
    """Write the style and the script of all pages."""
    style, dark = STYLE, dark_of()
    for name, light in (("PAGE", PAGE), ("LETTERS", INK), ("LINES", GRID)):
        style = style.replace(name, f"light-dark({light}, {dark[light]})")
    return f"<style>{style}{on_dark()}</style><script>{SCRIPT.read_text(encoding='utf-8')}</script>"
