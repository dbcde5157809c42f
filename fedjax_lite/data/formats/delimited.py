"""Cells between delimiters become numbers: by NumPy's parser where a piece of a file holds numbers alone, else cell by cell."""

import csv
import io
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.text_pieces import Piece
from fedjax_lite.refuse import short

__all__ = ["Source", "Words", "cells_of", "read"]

_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null"})  # of cells in lower case


class Source(NamedTuple):
    """A file of delimited cells."""

    file: Path
    names: Sequence[str]  # of its columns
    pieces: Callable[[], Iterable[Piece]]  # its lines below the header
    delimiter: str = ","
    quote: str = '"'


class Words(NamedTuple):
    """The words of a text column."""

    place: dict[str, float]  # by word
    why: str = ""  # the cell that made the column one of text


class _IsText(Exception):
    """A column was taken for numbers and holds a word."""


def read(
    sources: Sequence[Source], wanted: Sequence[int], text: dict[int, Words], *, drop: bool = False, fill: Collection[int] = ()
) -> tuple[np.ndarray, list[int], dict[int, Words]]:
    """Read columns as float32 `[rows, wanted]`; return the rows of each source too, and the words whose places text columns hold.

    Args:
        sources: files with the same columns.
        wanted: places of columns.
        text: the columns that are known to be text; others are found.
        drop: leave rows out in which a value is missing.
        fill: columns of numbers in which a missing value is NaN; in others it is refused.

    Raises:
        DataError: naming file, line and column: rows of unequal length, missing values, infinite ones.
    """
    while True:
        words = {column: Words(dict(known.place), known.why) for column, known in text.items()}
        try:
            found = [[_numbers(source, piece, wanted, words, drop, fill) for piece in source.pieces()] for source in sources]
        except _IsText as stop:
            column, why = stop.args
            text = text | {column: Words({}, why)}
        else:
            break
    nothing = np.zeros((0, len(wanted)), np.float32)
    return np.concatenate([nothing, *(part for parts in found for part in parts)]), [sum(map(len, parts)) for parts in found], words


def cells_of(source: Source, piece: Piece) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's line and its cells, checked to be one a column."""
    rows = csv.reader(io.StringIO(piece.text), delimiter=source.delimiter, quotechar=source.quote, skipinitialspace=True)
    line, width = piece.line, len(source.names)
    try:
        for cells in rows:
            if len(cells) > 1 or "".join(cells).strip():
                if len(cells) != width:
                    raise DataError(f"{source.file}, line {line}: {len(cells)} cells for {width} columns: give each column its cell")
                yield line, cells
            line = piece.line + rows.line_num
    except csv.Error as error:
        raise DataError(f"{source.file}, line {line}: {error}") from None


def _numbers(source: Source, piece: Piece, wanted: Sequence[int], words: dict[int, Words], drop: bool, fill: Collection[int]) -> np.ndarray:
    """Return a piece's values, float32 `[rows, wanted]`."""
    if not piece.text.strip():
        return np.zeros((0, len(wanted)), np.float32)
    coders = {column: _coder(words[column].place, source.quote) for column in wanted if column in words}
    converters: dict[int | str, Callable] = {column: len for column in range(len(source.names)) if column not in wanted}  # any quick number
    try:
        with np.errstate(over="ignore"):
            values = np.loadtxt(
                piece.text.split("\n"),
                np.float32,
                comments=None,
                delimiter=source.delimiter,
                quotechar=source.quote,
                converters=converters | coders,
                ndmin=2,
            )
        if values.shape[1] == len(source.names) and np.isfinite(values).all():
            return values[:, wanted]
    except ValueError:  # a word, a missing value or a mistake: look at each cell
        pass
    return _one_by_one(source, piece, wanted, coders, drop, fill)


def _coder(place: dict[str, float], quote: str) -> Callable[[str], float]:
    """Return a function from a cell to the place of its word, which it adds if it is new; NaN for a missing one."""
    known: dict[str, float] = {}

    def code(cell: str) -> float:
        found = known.get(cell)
        if found is None:
            word = cell.strip().strip(quote)
            found = known[cell] = math.nan if word.lower() in _MISSING else place.setdefault(word, float(len(place)))
        return found

    return code


def _one_by_one(
    source: Source, piece: Piece, wanted: Sequence[int], coders: dict[int, Callable], drop: bool, fill: Collection[int]
) -> np.ndarray:
    """Return a piece's values, once each cell has been looked at."""
    lines, rows = [], []
    for line, cells in cells_of(source, piece):
        lines.append(line)
        rows.append([coders[at](cells[at]) if at in coders else _number(cells[at], source, line, at) for at in wanted])
    values = np.array(rows, float).reshape(len(rows), len(wanted))
    gone = np.isnan(values)
    stays = np.array([drop or (column in fill and column not in coders) for column in wanted])[None]
    if (wrong := (gone & ~stays) | (np.abs(values) > np.finfo(np.float32).max)).any():
        row, at = np.argwhere(wrong)[0]
        place = f"{source.file}, line {lines[row]}, column {source.names[wanted[at]]!r}"
        if gone[row, at]:
            raise DataError(f"{place}: a value is missing: give missing='drop' to leave such rows out, or 'mean' to fill up features")
        raise DataError(f"{place}: {values[row, at]} is not finite in float32: clean or drop this row")
    return values[~gone.any(axis=1)].astype(np.float32) if drop else values.astype(np.float32)


def _number(cell: str, source: Source, line: int, column: int) -> float:
    """Return a cell's number; NaN where it is missing."""
    try:
        if "_" not in cell:  # which Python passes over within a number
            return float(cell)
    except ValueError:
        if cell.strip().lower() in _MISSING:
            return math.nan
    raise _IsText(column, f"{short(repr(cell), 40)} in line {line} of {source.file}")
