"""Find the line of a TOML text that sets a value."""

import re

__all__ = ["line_of"]


def line_of(text: str, path: tuple[str | int, ...]) -> int | None:
    """Return the number of the line, from 1, that sets the deepest part of `path`; None if no line sets a part of it."""
    section: tuple[str | int, ...] = ()
    count: dict[tuple[str | int, ...], int] = {}  # name -> number of its [[tables]] so far
    depth, found = 0, None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)\s*([\w.\-]+)\s*\]", line):
            section = ()
            for name in header[2].split("."):
                section = (*section, name)
                if section in count and section != tuple(header[2].split(".")):
                    section = (*section, count[section] - 1)
            if header[1] == "[[":
                count[section] = count.get(section, 0) + 1
                section = (*section, count[section] - 1)
            here = section if section != (*path, 0) else tuple(path)  # [[client]] where [client] is meant
        elif key := re.match(r"\s*(?:([\w.\-]+)|\"([^\"]+)\"|'([^']+)')\s*=", line):
            here = (*section, *(key[1].split(".") if key[1] else [key[2] or key[3]]))
        else:
            continue
        if len(here) > depth and tuple(here) == tuple(path[: len(here)]):
            depth, found = len(here), number
    return found
