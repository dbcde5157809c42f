"""Numbers and known words between delimiters, parsed in C: by pyarrow where it is installed, else by NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedjax_lite.data.formats.text_pieces import Piece

__all__ = ["MISSING", "at_once"]

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null"})  # of cells in lower case

Coders = dict[int, Callable[[str], float]]


def at_once(piece: Piece, delimiter: str, quote: str, width: int, wanted: Sequence[int], coders: Coders) -> np.ndarray | None:
    """Return a piece's values, float32 `[rows, wanted]`; None where it may hold more than numbers and known text.

    Whatever is returned, by whichever parser, is what a look at each cell gives.

    Args:
        piece: whole lines, one at least with cells.
        delimiter, quote: of cells.
        width: the number of columns.
        wanted: places of the columns that are wanted.
        coders: of those columns that are text, what makes a cell a number.
    """
    try:
        from pyarrow import csv
    except ImportError:
        return _by_numpy(piece, delimiter, quote, width, wanted, coders)
    if quote.encode() in piece.data or not delimiter.isascii() or delimiter == " ":  # where pyarrow means other things than Python by them
        return _by_numpy(piece, delimiter, quote, width, wanted, coders)
    return _by_arrow(csv, piece, delimiter, width, wanted, coders)


def _by_numpy(piece: Piece, delimiter: str, quote: str, width: int, wanted: Sequence[int], coders: Coders) -> np.ndarray | None:
    """Parse by NumPy, which takes no missing values."""
    others = {column: len for column in range(width) if column not in wanted}  # any quick number
    form: dict[str, Any] = {"delimiter": delimiter, "quotechar": quote, "converters": others | coders}
    try:
        with np.errstate(over="ignore"):
            values = np.loadtxt(piece.lines, np.float32, comments=None, ndmin=2, **form)
    except ValueError:
        return None
    return values[:, wanted] if values.shape[1] == width else None


def _by_arrow(csv: Any, piece: Piece, delimiter: str, width: int, wanted: Sequence[int], coders: Coders) -> np.ndarray | None:
    """Parse by pyarrow; a missing value is NaN."""
    import pyarrow as pa

    names = [str(column) for column in range(width)]
    types = {names[column]: pa.dictionary(pa.int32(), pa.string()) if column in coders else pa.float64() for column in wanted}
    try:
        table = csv.read_csv(
            pa.py_buffer(piece.data),
            read_options=csv.ReadOptions(use_threads=False, block_size=len(piece.data) + 1, column_names=names),
            parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False),
            convert_options=csv.ConvertOptions(column_types=types, include_columns=[*types], null_values=_SPELLINGS),
        )
    except pa.ArrowInvalid:
        return None
    values = np.empty((len(table), len(wanted)), np.float32)
    with np.errstate(over="ignore"):
        for at, column in enumerate(wanted):
            cells = table.column(at).chunk(0)
            if column in coders:
                values[:, at] = np.array([coders[column](word) for word in cells.dictionary.to_pylist()])[cells.indices.to_numpy()]
            else:
                values[:, at] = cells.to_numpy(zero_copy_only=False)
    numbers = [at for at, column in enumerate(wanted) if column not in coders]
    if not np.isfinite(values).all() and np.isnan(values[:, numbers]).sum() != sum(table.column(at).null_count for at in numbers):
        return None  # "nan(1)", which Python takes for a word
    return values


_SPELLINGS = sorted({spelling for word in MISSING for spelling in (word, word.upper(), word.capitalize())} | {"NaN"})
