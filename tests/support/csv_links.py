"""Read the numbers back that a page's figures link to."""

import csv
import io
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote


def tables_of(html):
    """file -> rows of the CSV behind each link, the first row on top."""
    links = ElementTree.fromstring(f"<body>{html}</body>").iter("a")
    found = {}
    for link in links:
        assert link.get("class") == "csv" and link.get("href").startswith("data:text/csv;charset=utf-8,")
        found[link.get("download")] = list(csv.reader(io.StringIO(unquote(link.get("href").split(",", 1)[1]))))
    return found
