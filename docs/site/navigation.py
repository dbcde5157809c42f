"""Patterns in the navigation, such as "tutorials/*.md", stand for the pages that it does not name."""

from fnmatch import fnmatch


def on_files(files, config):
    """Put pages in the place of patterns."""
    pages = sorted(file.src_uri for file in files.documentation_pages())
    config.nav = expanded(config.nav, set(pages) - set(leaves(config.nav)), pages)
    return files


def leaves(nav) -> list[str]:
    """Return the pages and patterns of a navigation."""
    if isinstance(nav, str):
        return [nav]
    return [leaf for part in (nav.values() if isinstance(nav, dict) else nav) for leaf in leaves(part)]


def expanded(nav: list, unnamed: set[str], pages: list[str]) -> list:
    """Return a navigation without patterns, and without what is empty then."""
    found = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            found += [page for page in pages if page in unnamed and fnmatch(page, entry)]
        elif isinstance(entry, dict) and isinstance(part := next(iter(entry.values())), list):
            found += [{name: inner} for name in entry if (inner := expanded(part, unnamed, pages))]
        else:
            found.append(entry)
    return found
