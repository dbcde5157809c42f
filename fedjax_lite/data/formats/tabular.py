"""From a table's rows to a population: words become numbers, missing values are filled up, features standardised."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.arrays import aligned, stranger
from fedjax_lite.data.error import DataError
from fedjax_lite.data.names import to_fit
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.refuse import is_count, short

__all__ = ["Rows", "population"]

_AT_ONCE = 2**16  # values


class Rows(NamedTuple):
    """A table's examples."""

    where: str  # their file, for errors
    x: np.ndarray  # float32 [rows, features]; NaN where a value is missing
    words: dict[int, Sequence[str]]  # of the features that are text, by place: their values are places in these
    y: np.ndarray  # [rows]
    classes: Sequence[str] | None  # the words of labels that are text
    client: np.ndarray | None  # int [rows]
    clients: Sequence[str]  # their names
    held: np.ndarray | None = None  # bool [rows]: those of the test part; None: there is none


def population(rows: Rows, *, text: str, standardise: bool, classes: Any, fit_on: Any, partition: Any, test: Any, seed: Any) -> TrainTest:
    """Make a population of a table's rows.

    Args:
        rows: of all parts.
        text: "one-hot", or "codes": a word becomes its place in the order of words as text.
        standardise: whether columns of numbers get the mean 0 and the standard deviation 1 over the training examples.
        classes: a number of classes, or the words of labels in their order, or None.
        fit_on: names of the clients whose training examples these statistics, and the means of missing values, are of; None: all.
        partition, test, seed: as in `arrange`.

    Raises:
        DataError: naming the column: labels that are none of the classes, too many words, no value among the training examples.
    """
    y, words = _labels(rows, classes)
    x, number = _features(rows, text)
    examples = {"x": x, "y": y}
    if (missing := np.isnan(x)).any():
        x[missing] = 0
        examples["missing"] = missing
    del missing
    parts = [_part(rows, examples, slice(None))] if rows.held is None else [_part(rows, examples, each) for each in (~rows.held, rows.held)]
    where = rows.where
    del rows, x, examples  # the population is a copy of them
    made = arrange(*parts, partition=partition, share=test, seed=seed, words=words)
    del parts
    fitted = slice(None) if fit_on is None else np.repeat(to_fit(made.names, fit_on), np.asarray(made.train.size))
    if "missing" in made.train.examples:
        made = _fill(made, fitted, where)
    return _standardise(made, fitted, number) if standardise else made


def _part(rows: Rows, examples: dict[str, np.ndarray], which: Any) -> Part:
    """Return the rows `which` as a part."""
    return Part(
        {name: array[which] for name, array in examples.items()}, rows.client if rows.client is None else rows.client[which], rows.clients
    )


def _labels(rows: Rows, classes: Any) -> tuple[np.ndarray, Sequence[str] | None]:
    """Return labels, int32 where all are whole, and the words of those that are text."""
    y, words = rows.y, rows.classes
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        place = {word: i for i, word in enumerate(classes)}
        if strange := [word for word in words or () if word not in place]:
            raise DataError(f"classes: the label {strange[0]!r} in {rows.where} is none of {short(list(classes))}: add it")
        return np.array([place[word] for word in words or ()], np.int32)[y.astype(int)], list(classes)
    if classes is not None and not is_count(classes, least=1):
        raise ValueError(f"classes must be a whole number of at least 1, or a list of words, got {classes!r}")
    if words is None and classes is not None and (found := stranger(y, classes)):
        raise DataError(
            f"classes={classes} admits the labels 0 to {classes - 1}, {rows.where} has {y[found[0]]:g}: raise it, or list labels as words"
        )
    if words is not None and classes is not None and len(words) > classes:
        raise DataError(f"classes={classes}, and the labels in {rows.where} are {len(words)} words, {short(words)}: raise it")
    return y.astype(np.float32 if stranger(np.abs(y), 2**31) else np.int32), words


def _features(rows: Rows, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return features with words as numbers, and which of their columns were numbers, bool `[columns]`."""
    if not rows.words or text == "codes":
        return rows.x, np.array([i not in rows.words for i in range(rows.x.shape[1])])
    columns, number = [], []
    for i, column in enumerate(rows.x.T):
        known = rows.words.get(i)
        columns.append(column[:, None] if known is None else column[:, None] == np.arange(len(known))[None])
        number += [known is None] * columns[-1].shape[1]
    return np.concatenate(columns, axis=1, dtype=np.float32), np.array(number)


def _fill(made: TrainTest, fitted: Any, where: str) -> TrainTest:
    """Fill missing values up by the mean of those that the training examples `fitted` have in that column."""
    x, gone = (np.asarray(made.train.examples[name])[fitted] for name in ("x", "missing"))
    number = (~gone).sum(axis=0)
    if not number.all():
        raise DataError(f"{where}: no training example has a value of feature {int(np.argmin(number))}: leave this column out by features=")
    mean = (x.sum(axis=0, dtype=float) / number).astype(np.float32)

    def filled(part: Any) -> Any:
        x, gone = (np.asarray(part.examples[name]) for name in ("x", "missing"))
        found = aligned(x.shape, x.dtype)
        found[:] = np.where(gone, mean[None], x)
        return _with(part, found)

    return TrainTest(*(part and filled(part) for part in made))


def _standardise(made: TrainTest, fitted: Any, number: np.ndarray) -> TrainTest:
    """Give columns the mean 0 and, where they vary, the standard deviation 1 over the training examples `fitted`."""
    mean, deviation = _moments(np.asarray(made.train.examples["x"])[fitted])
    mean = np.where(number, mean, 0).astype(np.float32)
    deviation = np.where(number & (deviation > 0), deviation, 1).astype(np.float32)

    def scaled(part: Any) -> Any:
        x = np.asarray(part.examples["x"])
        found = aligned(x.shape, x.dtype)
        for rows, (means, deviations) in _blocks(x, mean, deviation):
            np.subtract(x[rows], means, out=found[rows])
            found[rows] /= deviations
        return _with(part, found)

    return TrainTest(*(part and scaled(part) for part in made))


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of each column, float64, in one pass; of a column that does not vary exactly its value and 0.

    m = x_1 + E[x - x_1],   s^2 = E[(x - x_1)^2] - E[x - x_1]^2
    """
    first, total = x[0].astype(float), np.zeros(x.shape[1])
    squares = total
    for rows, (firsts,) in _blocks(x, first):
        off = x[rows] - firsts
        ones = np.ones(len(off))  # products with them are twice as fast as sums
        total, squares = total + ones @ off, squares + ones @ (off * off)
    mean = total / len(x)
    return first + mean, np.sqrt(np.maximum(squares / len(x) - mean * mean, 0))


def _blocks(x: np.ndarray, *of_columns: np.ndarray) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Yield rows that fit a cache, and arrays `[columns]` repeated for each of them: NumPy is slow where it repeats few values."""
    size = max(1, min(len(x), _AT_ONCE // x.shape[1]))
    repeated = [np.tile(values, (size, 1)) for values in of_columns]
    for begin in range(0, len(x), size):
        rows = slice(begin, min(begin + size, len(x)))
        yield rows, [values[: rows.stop - begin] for values in repeated]


def _with(part: Any, x: np.ndarray) -> Any:
    """Return a population with other features, which no one else holds."""
    return replace(part, examples={"x": jax.device_put(x), "y": part.examples["y"]})
