"""Results of the shipped configurations: what the header of each file says, its commands, and the bands of its table [expected]."""

import tomllib
from itertools import groupby
from pathlib import Path
from textwrap import dedent

from fedjax_lite.comparison.bands import Band, bands_of

CONFIGS = Path(__file__).parents[2] / "configs"
MARK = "<!-- the configurations -->"


def on_page_markdown(markdown, **others):
    """Put the results in the place of their mark."""
    return markdown.replace(MARK, "\n".join(map(section, sorted(CONFIGS.glob("*.toml"))))) if MARK in markdown else markdown


def section(path: Path) -> str:
    """Return a configuration's section: its header, and its bands."""
    text = path.read_text()
    link, expected = f"[configs/{path.name}](../configs/{path.name})", tomllib.loads(text).get("expected", {})
    return f"## {path.stem}\n\n{link}\n\n{header(text)}\n\n{bands(expected)}\n"


def header(text: str) -> str:
    """Return the comment at the top of a file as Markdown; its commands, which are set in, as blocks."""
    lines = [line[2:] for line in text.split("\nname =")[0].splitlines()]
    parts = [(code, "\n".join(part).strip("\n")) for code, part in groupby(lines, lambda line: line.startswith("  "))]
    return "\n\n".join(f"```text\n{dedent(part)}\n```" if code else part for code, part in parts if part)


def bands(expected: dict) -> str:
    """Return the table of bands."""
    if not expected:
        return "No band is stated.\n"
    lines = [f"| `{band.metric}` | {place(band)} | {band.low:g} to {band.high:g} |" for band in bands_of(expected)]
    return "\n".join(["| metric | of | band |", "|---|---|---|", *lines]) + "\n"


def place(band: Band) -> str:
    """Return which cells of a study, or which round of a run, a band is of."""
    of = ", ".join(f"{key} {x}" for key, x in band.of)
    return ", ".join(filter(None, (of, f"round {band.round}" if band.round else ""))) or "a run, at its end"
