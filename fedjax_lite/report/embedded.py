"""A page inside another page, such as a notebook."""

from html import escape

__all__ = ["embedded"]

HEIGHT = 640  # pixels; the page scrolls


def embedded(page: str) -> str:
    """Frame a whole page, so that neither its style nor its names touch the page around it.

    >>> embedded("<p>a & b</p>").count("&amp; b")
    1
    """
    return f'<iframe srcdoc="{escape(page)}" style="width:100%;height:{HEIGHT}px;border:0"></iframe>'
