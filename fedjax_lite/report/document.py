"""An HTML page that needs no other file."""

from html import escape

__all__ = ["document"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 980px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: 0 } h2 { font-size: 1.1em; margin-top: 2em; border-bottom: 1px solid #ddd }
.figures { display: flex; flex-wrap: wrap; gap: 1.5em 1em; margin-top: 1em } figure { margin: 0; flex: 1 1 420px; max-width: 480px }
figcaption { font-weight: 600 } small, .legend { font-weight: 400; font-size: 12px; color: #555 }
.legend span { margin-right: 1.2em; white-space: nowrap }
.legend b { display: inline-block; width: 30px; height: 8px; margin-right: 5px } .legend svg { display: block; height: 8px }
svg { width: 100%; font-size: 11px; fill: #444 } .grid { stroke: #e4e4e4 }
table { border-collapse: collapse; margin-bottom: 1em } td, th { padding: 2px 16px 2px 0; text-align: left; vertical-align: top }
td { font-variant-numeric: tabular-nums } th { font-weight: 400; color: #555; white-space: nowrap }
.wide { overflow-x: auto; font-size: 13px }
pre { background: #f6f6f6; padding: .8em; overflow-x: auto } .status { font-weight: 600 } .error { color: #b2182b }
"""


def document(title: str, body: str, style: str = "") -> str:
    """Write a page with this project's style, and more of it, around a body.

    >>> document("a < b", "<p>so</p>").startswith('<!doctype html><html lang="en"><head><meta charset="utf-8">')
    True
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}{style}</style></head><body>{body}</body></html>\n'
