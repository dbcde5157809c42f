"""Weka's ARFF: a header that names and types the columns, then rows of a table."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.columns import check_table_arguments, rows_of
from fedjax_lite.data.formats.delimited import Source, Words
from fedjax_lite.data.formats.reading import files_of
from fedjax_lite.data.formats.tabular import population
from fedjax_lite.data.formats.text_pieces import Piece, pieces
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.refuse import short

_ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|[^\s{]+)\s*(.*)", re.IGNORECASE)


def arff(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    label: str | int = -1,
    client: str | int | None = None,
    features: Sequence[str | int] | None = None,
    missing: str = "refuse",
    text: str = "one-hot",
    standardise: bool = True,
    classes: int | Sequence[str] | None = None,
    fit_on: Sequence[str] | None = None,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """ARFF files of dense rows: a row is an example, as in `csv`.

    The words of a nominal attribute are numbered in the order of its declaration. Other attributes are numbers or text by what their
    cells hold, whatever type is declared, or none.

    Args:
        path: a file, several, or a folder of .arff files, as in `csv`; .gz is unpacked.
        label: the label's attribute, by name or by place; by default the last.
        client, features, missing, text, standardise, classes, fit_on, partition, test, seed: as in `csv`.

    Returns:
        TrainTest. Examples: "x" float32 `[columns]`; "y" int32, float32 if a label is no whole number; `words` are the labels' words.

    Raises:
        FileNotFoundError: no such file, or a folder without .arff files.
        DataError: naming file and line: a header of another form, a word that its attribute does not declare, rows written sparsely, and
            as in `csv`.

    >>> import pathlib, tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "sport.arff")
    ...     _ = file.write_text("@relation sport\\n@attribute speed\\n@attribute sport {run, ride}\\n@data\\n1.5,run\\n7,ride\\n")
    ...     data = fl.data.arff(file, standardise=False, partition=fl.partition.iid(clients=1), test=0)
    >>> data.words, sorted(zip(data.train.examples["x"].tolist(), data.train.examples["y"].tolist()))
    (('run', 'ride'), [([1.5], 0), ([7.0], 1)])

    Source: Witten, Frank, Hall 2011, "Data Mining", 3rd edition, section 2.4.
    """
    check_table_arguments(missing, text)
    files = files_of(path, (".arff",))
    read = [_source(file) for file in files]
    declared = read[0][1]
    for file, (_, other) in zip(files, read, strict=True):
        if [*other.items()] != [*declared.items()]:
            raise DataError(f"{file} declares other words than {files[0]}: make their @attribute lines equal")
    sources = [source for source, _ in read]
    columns: dict[str, Any] = {"label": label, "client": client, "features": features, "missing": missing, "classes": classes}
    return population(
        rows_of(sources, **columns, declared=declared),
        text=text,
        standardise=standardise,
        classes=classes,
        fit_on=fit_on,
        partition=partition,
        test=test,
        seed=seed,
    )


def _source(file: Path) -> tuple[Source, dict[int, Words]]:
    """Read a file's header: its columns, and the words of those that declare some."""
    names: list[str] = []
    declared: dict[int, Words] = {}
    for piece in pieces(file):
        for number, line in enumerate(map(str.strip, piece.lines), piece.line):
            if line.lower() == "@data":
                rows = partial(_below, file, number)
                first = next((below.data for below in rows()), b"")
                delimiter, quote = "\t" if b"," not in first else ",", "'" if b'"' not in first else '"'
                return Source(file, names, rows, delimiter, quote), declared
            if found := _ATTRIBUTE.fullmatch(line):
                name, kind = found[1].strip("'\""), found[2].strip()
                if kind.startswith("{"):
                    declared[len(names)] = Words({word: float(i) for i, word in enumerate(_words(kind, file, number))})
                names.append(name)
            elif line and not line.startswith("%") and not line.lower().startswith("@relation"):
                raise DataError(
                    f"{file}, line {number}: {short(repr(line), 60)} is neither @relation, @attribute nor @data: mend the header"
                )
    raise DataError(f"{file} has no line @data: it is cut off, or no ARFF")


def _words(kind: str, file: Path, line: int) -> list[str]:
    """Return the words of a nominal attribute."""
    if not kind.endswith("}"):
        raise DataError(f"{file}, line {line}: {short(repr(kind), 60)} does not end with }}: mend the header")
    quote = "'" if "'" in kind else '"'
    words = [word.strip() for cells in csv.reader([kind[1:-1]], quotechar=quote, skipinitialspace=True) for word in cells]
    if len(set(words)) < len(words) or not words:
        raise DataError(f"{file}, line {line}: {short(repr(kind), 60)} must be different words: mend the header")
    return words


def _below(file: Path, header: int) -> Iterator[Piece]:
    """Yield the lines below the header's last, with comments blanked."""
    for piece in pieces(file):
        data = piece.after(max(header + 1 - piece.line, 0))
        lines = ["\n" if line.lstrip().startswith("%") else line for line in data.lines]
        below = Piece(data.line, "".join(lines).encode())
        if sparse := [number for number, line in enumerate(lines, below.line) if line.lstrip().startswith("{")]:
            raise DataError(f"{file}, line {sparse[0]}: a row is written sparsely: convert it, for instance by Weka's SparseToNonSparse")
        if lines:
            yield below
