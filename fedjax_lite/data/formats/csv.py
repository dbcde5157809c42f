"""Tables of delimited text: CSV, TSV, and files of data without a header."""

import csv as standard
import itertools
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.columns import check_table_arguments, rows_of
from fedjax_lite.data.formats.delimited import Source
from fedjax_lite.data.formats.reading import files_of
from fedjax_lite.data.formats.tabular import population
from fedjax_lite.data.formats.text_pieces import Piece, pieces
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest

_ENDS = (".csv", ".tsv", ".data", ".txt")  # of files in a folder, perhaps with .gz behind


def csv(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    label: str | int,
    client: str | int | None = None,
    features: Sequence[str | int] | None = None,
    header: bool = True,
    delimiter: str | None = None,
    missing: str = "refuse",
    text: str = "one-hot",
    standardise: bool = True,
    classes: int | Sequence[str] | None = None,
    fit_on: Sequence[str] | None = None,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """Tables of delimited text: a row is an example, a column or a file says whose it is.

    x = (value - m) / s, with the mean m and the standard deviation s of the column over all training examples, where it varies.

    Args:
        path: a file, several, or a folder of .csv, .tsv, .data and .txt files, which have the same columns; .gz is unpacked. Two
            files called train and test are the parts; of other files without `client`, each is a client, called like the file without
            its ending.
        label: the label's column, by name, or by place from 0, or from the end if negative.
        client: the column that says whose the example is.
        features: the columns of x in this order; by default all others.
        header: whether the first line names the columns; if not, they are called "0", "1", and so on.
        delimiter: between cells; by default that of `, ; tab |` which cuts the first lines into most cells, each line alike.
        missing: of a value that is missing (an empty cell, ?, NA, N/A, NaN, null): "refuse" it, "drop" its row, or fill a feature up by
            the "mean" of the training examples' values; a label, client or word that is missing is then still refused.
        text: what becomes of a feature with words: "one-hot", a column for each word, or "codes", its place among the words.
            Words are in their order as text, over all parts.
        standardise: whether numbers are standardised, after the test part is held out.
        classes: the number of classes, which whole labels must keep below; or the words of the labels in their order. By default, labels
            that are all numbers stay, and words are numbered in their order as text.
        fit_on: names of the clients whose training examples means and deviations are of; by default all.
        partition: deals the training examples to clients, whoever's they are.
        test: share of its examples that each client holds out, in [0, 1).
        seed: of the partition, and of what is held out.

    Returns:
        TrainTest. Examples: "x" float32 `[columns]`; "y" int32, float32 if a label is no whole number; `words` are the labels' words.

    Raises:
        FileNotFoundError: no such file, or a folder without tables.
        DataError: naming file, line and column: cells that are missing or too many, a value that is missing or infinite, a column of more
            than 100 words, no UTF-8.

    >>> import pathlib, tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "sport.csv").write_text("who,speed,sport\\nann,1.5,run\\nbob,7,ride\\nann,2.5,run\\nbob,2,run\\n")
    ...     data = fl.data.csv(folder + "/sport.csv", label="sport", client="who", standardise=False, test=0)
    >>> data.names, data.words, data.train.examples["x"].tolist(), data.train.examples["y"].tolist()
    (Names(2 clients: ann, bob), ('ride', 'run'), [[1.5], [2.5], [7.0], [2.0]], [1, 1, 0, 1])

    Source: Shafranovich 2005, "Common Format and MIME Type for Comma-Separated Values (CSV) Files", RFC 4180.
    """
    check_table_arguments(missing, text)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"delimiter must be one character, got {delimiter!r}")
    sources = [_source(file, header, delimiter) for file in files_of(path, _ENDS)]
    columns: dict[str, Any] = {"label": label, "client": client, "features": features, "missing": missing, "classes": classes}
    return population(
        rows_of(sources, **columns),
        text=text,
        standardise=standardise,
        classes=classes,
        fit_on=fit_on,
        partition=partition,
        test=test,
        seed=seed,
    )


def _source(file: Path, header: bool, delimiter: str | None) -> Source:
    """Return a file with its columns' names and its delimiter, told by its first lines."""
    first = next(pieces(file), Piece(1, b""))
    try:
        cut = _sniffed(first.lines) if delimiter is None else delimiter
        names, _ = _header(first, cut)
    except standard.Error as error:
        raise DataError(f"{file}, line {first.line}: {error}") from None
    if not names:
        raise DataError(f"{file} is empty: give a table")
    return Source(file, names if header else [str(i) for i in range(len(names))], partial(_below, file, cut if header else None), cut)


def _header(piece: Piece, delimiter: str) -> tuple[list[str], int]:
    """Return the cells of the first row that is not blank, and the number of lines up to its end."""
    rows = standard.reader(piece.lines, delimiter=delimiter, skipinitialspace=True)
    names = next((cells for cells in rows if "".join(cells).strip()), [])
    return [name.strip() for name in names], rows.line_num


def _below(file: Path, header: str | None) -> Iterator[Piece]:
    """Yield a file's lines without its header, whose delimiter is `header`; None: it has none."""
    for piece in pieces(file):
        if header is not None and not piece.blank:
            piece, header = piece.after(_header(piece, header)[1]), None
        yield piece


def _sniffed(lines: Iterator[str]) -> str:
    """Return the delimiter that cuts the first lines into most cells, all lines into as many."""
    some = [line for line in itertools.islice(lines, 50) if line.strip()]

    def cells(delimiter: str) -> tuple[bool, int]:
        counts = [len(cells) for cells in standard.reader(some, delimiter=delimiter, skipinitialspace=True)] or [0]
        return len(set(counts)) == 1 and counts[0] > 1, counts[0]

    return max(",;\t|", key=cells)
