"""Results of the shipped configurations: what the header of each file says, its commands, and the bands of its table [expected]."""

import tomllib
from itertools import groupby
from pathlib import Path
from textwrap import dedent

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
    rows = list(_rows(expected, "", ""))
    if not rows:
        return "No band is stated.\n"
    lines = [f"| {metric} | {where} | {low:g} to {high:g} |" for metric, where, low, high in rows]
    return "\n".join(["| metric | of | band |", "|---|---|---|", *lines]) + "\n"


def _rows(table: dict, cell: str, when: str):
    """Yield the metric, the place, and both ends of each band."""
    for name, value in table.items():
        if name == "cells":
            for each in value:
                of = ", ".join(f"{key} {x}" for key, x in each["of"].items())
                yield from _rows({key: x for key, x in each.items() if key != "of"}, of, when)
        elif isinstance(value, dict):
            yield from _rows(value, cell, name.replace("_", " "))
        else:
            yield f"`{name}`", ", ".join(filter(None, (cell, when))) or "a run, at its end", *value
