"""Describe a run's data, all parts of it, before anything runs: as text, as one HTML page, and as stores with the lines that read them."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.picture import in_text, picture
from fedjax_lite.data.save import save
from fedjax_lite.data.train_test import Source
from fedjax_lite.report.document import Section, page
from fedjax_lite.report.spread import Sample, histogram
from fedjax_lite.report.strokes import STROKES

__all__ = ["data_page", "data_text", "save_parts"]


def populations(source: Source) -> dict[str, Any]:
    """Return the parts of a run's data by what they are; who holds only a few examples of a part has a row all the same."""
    of_each = source.test is not None and source.test.population == source.population > 1
    named = {"training examples": source.train, f"held-out examples{' of each client' if of_each else ', of no client'}": source.test}
    named["public examples"] = source.public
    if source.new is not None:
        named |= {"clients that never take part": source.new.train, "held-out examples of these": source.new.test}
    return {title: part for title, part in named.items() if part is not None}


def data_text(source: Source) -> str:
    """Describe all parts in letters, the training examples with who has what."""
    parts = populations(source).items()
    return "\n".join(f"{title}: {in_text(part) if part is source.train else part.summary()}" for title, part in parts)


def data_page(name: str, found: Sequence[str], source: Source) -> str:
    """Describe all parts in one HTML page, with a picture of each.

    Args:
        name: the page's heading.
        found: sentences on what was read.
        source: the data.
    """
    parts = populations(source)
    several = {title: np.asarray(part.size, np.float64) for title, part in parts.items() if part.population > 1}
    samples = [Sample(title, stroke, size) for stroke, (title, size) in zip(STROKES, several.items(), strict=False)]
    sizes = f'<div class="figures">{histogram("clients in %, by examples", "examples", samples, True)}</div>' if samples else ""
    pictures = [
        Section(title.capitalize(), f'<pre>{escape(part.summary())}</pre><div class="wide">{picture(part)}</div>')
        for title, part in parts.items()
    ]
    told = "".join(f"<p>{escape(line)}</p>" for line in found)
    return page(name, f"<h1>{escape(name)}</h1>{told}{sizes}", pictures)


def save_parts(folder: str | Path, source: Source) -> str:
    """Write the training part as a store, and the held-out part beside it; return the lines of a configuration that read both.

    Raises:
        ValueError: for a training part that is a store, and for a folder that exists.
    """
    if not isinstance(source.train, FederatedData):
        raise ValueError(f"{source.train.path} is a store already: copy its folder")
    train = Path(folder)
    test = train.with_name(f"{train.name}-test")
    if source.test is not None and test.exists():
        raise ValueError(f"{test} exists: remove it, or write to another folder")
    lines = ["[data]", 'name = "store"', f"path = {_quoted(save(train, source.train).path)}"]
    if source.test is not None:
        lines.append(f"test = {_quoted(save(test, source.test).path)}")
    return "\n".join(lines)


def _quoted(path: Path) -> str:
    """Write a path as TOML text."""
    text = str(path.absolute()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
