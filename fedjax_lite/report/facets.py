"""How the axes of a study are laid out: the longest as rows and columns, or as curves; each combination of the others is a figure."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Facet", "combinations", "facets", "longest"]

Axes = Mapping[str, Sequence[str]]  # name -> labels


class Facet(NamedTuple):
    """One map of a study's cells."""

    caption: str  # where it lies on the axes that are neither rows nor columns
    names: tuple[str, str]  # of rows and columns; "" where there is no such axis
    labels: tuple[Sequence[str], Sequence[str]]
    cells: np.ndarray  # [rows, columns], int: the places in the study's table


def longest(axes: Axes, count: int) -> tuple[list[int], list[int]]:
    """Return the indices of the `count` longest axes, the longest first, and those of the others.

    >>> longest({"rate": "ab", "rule": "abcd", "seed": "abc"}, 2)
    ([1, 2], [0])
    """
    order = sorted(range(len(axes)), key=lambda i: -len(list(axes.values())[i]))
    return order[:count], sorted(order[count:])


def combinations(axes: Axes, others: Sequence[int]) -> list[tuple[dict[int, int], str]]:
    """Return each combination of values of the axes `others`: axis -> place, and a caption.

    >>> combinations({"rate": ["0.1", "1"], "rule": ["mean"]}, [0])
    [({0: 0}, 'rate 0.1'), ({0: 1}, 'rate 1')]
    """
    names, labels = list(axes), list(axes.values())
    return [
        (dict(zip(others, places, strict=True)), ", ".join(f"{names[i]} {labels[i][k]}" for i, k in zip(others, places, strict=True)))
        for places in itertools.product(*(range(len(labels[i])) for i in others))
    ]


def facets(axes: Axes) -> Iterator[Facet]:
    """Yield the maps that show every cell once: the two longest axes are rows and columns.

    >>> [(each.caption, each.cells.tolist()) for each in facets({"a": ["x", "y"], "b": ["1", "2", "3"], "c": ["u"]})]
    [('c u', [[0, 3], [1, 4], [2, 5]])]
    """
    two, others = longest(axes, 2)
    named = [*(list(axes.items())[i] for i in two), ("", ("",)), ("", ("",))][:2]
    names, labels = zip(*named, strict=True)
    shape = [len(each) for each in axes.values()]
    cells = np.arange(np.prod(shape, dtype=int)).reshape(shape).transpose([*others, *two])
    for fixed, caption in combinations(axes, others):
        yield Facet(caption, names, labels, cells[tuple(fixed[i] for i in others)].reshape([len(each) for each in labels]))
