"""Cells between delimiters become numbers, and words places in a list of words; a cell that is neither is refused with its place."""

import csv
import functools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.quick_cells import MISSING, at_once
from fedjax_lite.data.formats.text_pieces import Piece
from fedjax_lite.refuse import short

__all__ = ["Source", "Words", "read"]

_ROOM = 2**24  # values


class Source(NamedTuple):
    """A file of delimited cells."""

    file: Path
    names: Sequence[str]  # of its columns
    pieces: Callable[[], Iterator[Piece]]  # its lines below the header
    delimiter: str = ","
    quote: str = '"'


class Words(NamedTuple):
    """The words of a text column."""

    place: dict[str, float]  # by word
    why: str = ""  # the cell that made the column one of text


class _IsText(Exception):
    """A column was taken for numbers and holds a word."""


def read(
    sources: Sequence[Source],
    features: Sequence[int],
    others: Sequence[int],
    text: dict[int, Words],
    *,
    drop: bool = False,
    fill: Collection[int] = (),
) -> tuple[np.ndarray, np.ndarray, list[int], dict[int, Words]]:
    """Read columns as float32 `[rows, features]` and `[rows, others]`; return the rows of each source too, and text columns' words.

    Args:
        sources: files with the same columns.
        features, others: places of columns.
        text: the columns that are known to be text; others are found.
        drop: leave rows out in which a value is missing.
        fill: columns of numbers in which a missing value is NaN; in others it is refused.

    Raises:
        DataError: naming file, line and column: rows of unequal length, missing values, infinite ones.
    """
    wanted = [*features, *others]
    while True:
        words = {column: Words(dict(known.place), known.why) for column, known in text.items()}
        coders = {column: _coder(known.place, sources[0].quote) for column, known in words.items()}
        parts = (
            (at, _numbers(source, piece, wanted, coders, drop, fill)) for at, source in enumerate(sources) for piece in source.pieces()
        )
        try:
            return *_joined(parts, len(sources), (len(features), len(others))), words
        except _IsText as stop:
            column, why = stop.args
            text = text | {column: Words({}, why)}


def _joined(parts: Iterator[tuple[int, np.ndarray]], sources: int, widths: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Join values as they come, cut in two; return the rows of each source, whose place comes with the values, too."""
    # Memory that nothing was written to yet is none, so that there is room without a second copy at the end.
    joined, rows, counts = [np.empty((_ROOM // sum(widths) + 1, width), np.float32) for width in widths], 0, [0] * sources
    for at, part in parts:
        if rows + len(part) > len(joined[0]):
            for i, array in enumerate(joined):
                joined[i] = np.empty((2 * rows + len(part), widths[i]), np.float32)
                joined[i][:rows] = array[:rows]
        joined[0][rows : rows + len(part)], joined[1][rows : rows + len(part)] = np.split(part, widths[:1], axis=1)
        rows += len(part)
        counts[at] += len(part)
    return joined[0][:rows], joined[1][:rows], counts


def _numbers(
    source: Source, piece: Piece, wanted: Sequence[int], coders: dict[int, Callable], drop: bool, fill: Collection[int]
) -> np.ndarray:
    """Return a piece's values, float32 `[rows, wanted]`."""
    if piece.blank:
        return np.zeros((0, len(wanted)), np.float32)
    stays = np.array([drop or (column in fill and column not in coders) for column in wanted])[None]
    values = at_once(piece, source.delimiter, source.quote, len(source.names), wanted, coders)
    if values is None or _refused(values, stays).any():
        lines, exact = _row_by_row(source, piece, wanted, coders)
        with np.errstate(over="ignore"):
            values = exact.astype(np.float32)
        for row, at in np.argwhere(_refused(values, stays))[:1]:
            place = f"{source.file}, line {lines[row]}, column {source.names[wanted[at]]!r}"
            if np.isnan(values[row, at]):
                also = "" if wanted[at] in coders else ", or 'mean' to fill numbers of features up"
                raise DataError(f"{place}: a value is missing: give missing='drop' to leave such rows out{also}")
            raise DataError(f"{place}: {exact[row, at]} is not finite in float32: clean or drop this row")
    return values[~np.isnan(values).any(axis=1)] if drop else values


def _refused(values: np.ndarray, stays: np.ndarray) -> np.ndarray:
    """Return which values are infinite, or missing in a column in which they may not."""
    refused = ~np.isfinite(values)
    return refused & ~(np.isnan(values) & stays) if refused.any() else refused


def _row_by_row(source: Source, piece: Piece, wanted: Sequence[int], coders: dict[int, Callable]) -> tuple[list[int], np.ndarray]:
    """Return the lines and values of a piece's rows, each cell looked at."""
    lines, values, width = [], [], len(source.names)
    rows, line = (
        csv.reader(piece.lines, delimiter=source.delimiter, quotechar=source.quote, skipinitialspace=True),
        piece.line,
    )
    try:
        for cells in rows:
            if len(cells) > 1 or "".join(cells).strip():
                if len(cells) != width:
                    raise DataError(f"{source.file}, line {line}: {len(cells)} cells for {width} columns: give each column its cell")
                lines.append(line)
                values.append([coders[at](cells[at]) if at in coders else _number(cells[at], source, line, at) for at in wanted])
            line = piece.line + rows.line_num
    except csv.Error as error:
        raise DataError(f"{source.file}, line {line}: {error}") from None
    return lines, np.array(values, float).reshape(len(values), len(wanted))


def _coder(place: dict[str, float], quote: str) -> Callable[[str], float]:
    """Return a function from a cell to the place of its word, which it adds if it is new; NaN for a missing one."""

    def code(cell: str) -> float:
        word = cell.strip().strip(quote)
        return math.nan if word.lower() in MISSING else place.setdefault(word, float(len(place)))

    return functools.cache(code)


def _number(cell: str, source: Source, line: int, column: int) -> float:
    """Return a cell's number; NaN where it is missing."""
    try:
        if "_" not in cell:  # which Python passes over within a number
            return float(cell.strip())  # Python strips less of ASCII text than NumPy
    except ValueError:
        if cell.strip().lower() in MISSING:
            return math.nan
    raise _IsText(column, f"{short(repr(cell), 40)} in line {line} of {source.file}")
