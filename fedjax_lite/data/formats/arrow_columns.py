"""From Arrow's columns to a population: images and lists as arrays, numbers and words as a table's rows."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.columns import check_few_words
from fedjax_lite.data.formats.pictures import decoded
from fedjax_lite.data.formats.tabular import Rows
from fedjax_lite.refuse import short

__all__ = ["rows_of_arrow"]


class Column(NamedTuple):
    """A column of numbers, or of words."""

    values: np.ndarray  # float64 [rows], NaN where one is missing
    words: Sequence[str] | None  # values are places in these


def rows_of_arrow(
    table: Any, where: str, *, label: str, client: str | None, features: Sequence[str] | None, missing: str, size: Any, grey: bool
) -> tuple[Rows, np.ndarray, bool]:
    """Read an Arrow table's rows.

    Args:
        table: pyarrow's.
        where: its file, for errors.
        label, client, features: columns.
        missing: "refuse", "drop" or "mean".
        size, grey: of images.

    Returns:
        The rows, which of the table's rows these are, bool `[rows]`, and whether x is one column's arrays.

    Raises:
        DataError: naming the column: not there, of another type, with missing values.
    """
    if not len(table):
        raise DataError(f"{where} holds no rows: give a file with examples")
    names = table.schema.names
    chosen = [name for name in names if name not in (label, client)] if features is None else list(features)
    for argument, wanted in (("label", [label]), ("client", [] if client is None else [client]), ("features", chosen)):
        if strange := [name for name in wanted if name not in names]:
            raise DataError(f"{argument}: {where} has no column {strange[0]!r}; it has {short(', '.join(map(repr, names)))}")
    if not chosen or len({*chosen, label, client}) < len(chosen) + 2:
        raise DataError(f"{where}: label, client and features must be different columns, and one at least a feature: choose others")
    arrays = [name for name in chosen if _is_array(table.schema.field(name).type)]
    if arrays and len(chosen) > 1:
        raise DataError(
            f"features: columns {', '.join(chosen)} of {where} are arrays and others: choose one, as in features=[{arrays[0]!r}]"
        )
    y = _column(table, label, where, _class_names(table.schema, label))
    owner = None if client is None else _column(table, client, where, as_text=True)
    scalars = {} if arrays else {name: _column(table, name, where) for name in chosen}
    for name, column in scalars.items():
        check_few_words(name, column.words or (), f"{(column.words or [''])[0]!r} in {where}")
    kept = _kept(where, {label: y} if client is None or owner is None else {label: y, client: owner}, scalars, missing)
    if arrays:
        x = _array(table.filter(kept)[arrays[0]], arrays[0], where, size, grey)
    else:
        x = np.stack([column.values[kept] for column in scalars.values()], axis=1)
    rows = Rows(
        where=where,
        x=_in_float32(x, where),
        words={at: column.words for at, column in enumerate(scalars.values()) if column.words is not None},
        y=y.values[kept],
        classes=y.words,
        client=None if owner is None else owner.values[kept].astype(int),
        clients=() if owner is None else owner.words or (),
    )
    return rows, kept, bool(arrays)


def _is_array(kind: Any) -> bool:
    """Return whether a column holds images or lists."""
    import pyarrow as pa

    return pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _column(table: Any, name: str, where: str, classes: Sequence[str] | None = None, as_text: bool = False) -> Column:
    """Return a column of numbers, truth values or words; with `classes`, of places in these."""
    import pyarrow as pa

    column, kind = table[name].combine_chunks(), table.schema.field(name).type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    words = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    try:
        if words or as_text:
            coded = column.cast(pa.string()).dictionary_encode()
            found = coded.dictionary.to_pylist()
            rank = {word: float(i) for i, word in enumerate(sorted(found))}
            places = np.array([*(rank[word] for word in found), np.nan])
            return Column(places[coded.indices.fill_null(len(found)).to_numpy()], sorted(found))
        values = column.cast(pa.int8() if pa.types.is_boolean(kind) else kind).cast(pa.float64(), safe=False)
        values = values.to_numpy(zero_copy_only=False)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(
            f"column {name!r} of {where} holds {kind}, neither numbers nor text ({str(error).splitlines()[0]}): choose another"
        ) from None
    if classes is not None and not (np.isnan(values) | ((values >= 0) & (values < len(classes)))).all():
        raise DataError(f"column {name!r} of {where} holds labels that are none of its {len(classes)} classes (-1: not labelled)")
    return Column(values, classes)


def _class_names(schema: Any, label: str) -> list[str] | None:
    """Return the names of a ClassLabel, which Hugging Face's metadata has."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        names = feature["names"] if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _kept(where: str, needed: dict[str, Column], scalars: dict[str, Column], missing: str) -> np.ndarray:
    """Return which rows stay: all, or those without a missing value."""
    columns = needed | scalars
    gone = np.stack([np.isnan(column.values) for column in columns.values()], axis=1)
    if missing == "drop":
        if gone.any(axis=1).all():
            raise DataError(f"{where} holds no rows without a missing value")
        return np.asarray(~gone.any(axis=1))
    may = [missing == "mean" and name in scalars and column.words is None for name, column in columns.items()]
    if (wrong := gone & ~np.array(may)[None]).any():
        row, at = np.argwhere(wrong)[0]
        raise DataError(f"{where}, row {row}, column {list(columns)[at]!r}: a value is missing: give missing='drop', or 'mean' for numbers")
    return np.ones(len(gone), bool)


def _array(column: Any, name: str, where: str, size: Any, grey: bool) -> np.ndarray:
    """Return images, or lists of numbers of one shape, as `[rows, ...]`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column, shape = column.combine_chunks(), [len(column)]
    if pa.types.is_struct(column.type) and "bytes" in [field.name for field in column.type]:
        column = column.field("bytes")
    if column.null_count:
        raise DataError(f"column {name!r} of {where}: {column.null_count} of its images or lists are missing: write them into the file")
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        files = [(f"{where}, row {row}, column {name!r}", value.as_py) for row, value in enumerate(column)]
        return decoded(files, len(files), size, grey)
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            raise DataError(f"column {name!r} of {where} holds lists of the lengths {short(lengths)}: make them equal, and not empty")
        shape.append(lengths[0])
        column = column.flatten()
    if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise DataError(f"column {name!r} of {where} holds {column.type}, {column.null_count} missing: choose one of images or of numbers")
    values = column.to_numpy(zero_copy_only=False).reshape(shape)
    if np.isnan(values.astype(float)).any():
        raise DataError(f"column {name!r} of {where} holds NaN: clean or drop such rows")
    return values


def _in_float32(x: np.ndarray, where: str) -> np.ndarray:
    """Return features as float32."""
    if not np.isnan(x).all() and np.nanmax(np.abs(x.astype(float))) > np.finfo(np.float32).max:
        raise DataError(f"{where} holds a feature that is not finite in float32: clean or drop such rows")
    return x.astype(np.float32)
