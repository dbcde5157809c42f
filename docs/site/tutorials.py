"""The page of all tutorials: their titles, and their first sentences, in the navigation's order."""

import re
from fnmatch import fnmatch
from pathlib import Path

from navigation import leaves

TUTORIALS = Path(__file__).parents[1] / "tutorials"


def on_files(files, config):
    """Add the page, where there are tutorials."""
    from mkdocs.structure.files import File  # here, so that the rest needs no mkdocs

    if found := sorted(TUTORIALS.glob("*.md")):
        files.append(File.generated(config, "tutorials/index.md", content=listing(found, leaves(config.nav))))
    return files


def listing(pages: list[Path], order: list[str]) -> str:
    """Return the page; a page's place is that of the first pattern that stands for it."""
    ranked = sorted(
        pages, key=lambda page: next((i for i, each in enumerate(order) if fnmatch(f"tutorials/{page.name}", each)), len(order))
    )
    return "\n".join(["# Tutorials", "", *map(line, ranked)]) + "\n"


def line(page: Path) -> str:
    """Return a tutorial's line."""
    title, _, text = page.read_text().partition("\n")
    first = re.split(r"\.(?= [A-Z]|$)", " ".join(text.strip().split("\n\n")[0].split()))[0]
    return f"- [{title.removeprefix('# ')}]({page.name}). {first}."
