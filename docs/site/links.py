"""Links of a page that leave docs/ lead to the pages that stand for their files; drawings stand in the page, in its colours."""

import posixpath
import re
from pathlib import Path

from outside import DOCS, LINK, ROOT, TEXTS, page_of, target

SOURCES = {place: ROOT / path for path, place in TEXTS.items()}
PICTURE = re.compile(r"!\[([^\]]*)\]\((pictures/\w+\.svg)\)")


def on_page_markdown(markdown, page, **others):
    """Rewrite the links of a page."""
    source, here = source_of(page.file.src_uri), posixpath.dirname(page.file.src_uri)
    if source is None:
        return markdown

    def rewritten(link):
        path = target(source, link[2])
        return link[0] if path is None else f"{link[1]}{posixpath.relpath(page_of(path), here or '.')}{link[3] or ''}"

    return PICTURE.sub(lambda picture: drawn(DOCS / picture[2], picture[0]), LINK.sub(rewritten, markdown))


def source_of(place: str) -> Path | None:
    """Return the file that a page of the site is made of; None for one that a hook has written."""
    if place.startswith("files/") and place.endswith(".md.md"):
        return ROOT / place.removeprefix("files/").removesuffix(".md")
    source = SOURCES.get(place, DOCS / place)
    return next((path for path in (source, source.with_suffix(".ipynb")) if path.exists()), None)


def drawn(path: Path, image: str) -> str:
    """Return a drawing that takes its colours from the page, or else the image as it was."""
    text = path.read_text()
    return text.strip() if 'class="picture"' in text else image
