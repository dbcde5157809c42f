"""The navigation: a pattern in it, such as "tutorials/*.md", stands for the pages that it does not name."""

from fnmatch import fnmatch


def on_files(files, config):
    """Put pages in the place of patterns."""
    named = leaves(config.nav)
    config.nav = expanded(config.nav, sorted(page for file in files.documentation_pages() if (page := file.src_uri) not in named))
    return files


def on_page_markdown(markdown, page, **others):
    """Leave the bar beside the front page out, which would name that page alone."""
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]
    return markdown


def leaves(nav) -> list[str]:
    """Return the pages and patterns of a navigation."""
    if isinstance(nav, str):
        return [nav]
    return [leaf for part in (nav.values() if isinstance(nav, dict) else nav) for leaf in leaves(part)]


def expanded(nav: list, unnamed: list[str]) -> list:
    """Return a navigation without patterns, and without what is empty then; takes the pages that it finds from those without a name."""
    found = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            matching = [page for page in unnamed if fnmatch(page, entry)]
            unnamed[:] = [page for page in unnamed if page not in matching]
            found += matching
        elif isinstance(entry, dict) and isinstance(part := next(iter(entry.values())), list):
            found += [{name: inner} for name in entry if (inner := expanded(part, unnamed))]
        else:
            found.append(entry)
    return found
