"""Which column of a table is what, and the rows of files that share their columns."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.delimited import Source, Words, read
from fedjax_lite.data.formats.reading import stem
from fedjax_lite.data.formats.tabular import Rows
from fedjax_lite.refuse import is_count, short

__all__ = ["check_few_words", "check_table_arguments", "roles_of", "rows_of"]

_MOST_WORDS, _MOST_CLIENTS = 100, 2**24  # different words of a feature; clients that float32 tells apart


class Roles(NamedTuple):
    """The places of the columns that are used."""

    features: list[int]
    label: int
    client: int | None

    @property
    def others(self) -> list[int]:
        """Those that are no features."""
        return [self.label, *([] if self.client is None else [self.client])]


def roles_of(where: Any, names: Sequence[str], label: Any, client: Any, features: Any) -> Roles:
    """Find the columns by name, or by place from 0, or from the end if negative; by default each other column is a feature.

    Raises:
        DataError: naming the argument: a column that is not there, one that is used twice, no features.
    """
    if len(set(names)) < len(names):
        double = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{where}: two columns are called {double!r}: give each another name")
    at = _place(where, names, "label", label)
    owner = None if client is None else _place(where, names, "client", client)
    if owner == at:
        raise DataError(f"client: {client!r} is the label's column of {where} too: give another")
    if features is not None and (isinstance(features, str) or not isinstance(features, Sequence)):
        raise ValueError(f"features must be a list of columns, got {features!r}")
    others = [i for i in range(len(names)) if i not in (at, owner)]
    found = others if features is None else [_place(where, names, "features", each) for each in features]
    if wrong := [names[i] for n, i in enumerate(found) if i == at or i in found[:n]]:
        raise DataError(
            f"features: {wrong[0]!r} is {'twice there' if found.count(names.index(wrong[0])) > 1 else 'the label'}: leave it out"
        )
    if not found and features is not None:
        raise DataError("features is empty: give one column at least")
    if not found:
        raise DataError(f"features: {where} has no column but label and client: is the delimiter another?")
    return Roles(found, at, owner)


def _place(where: Any, names: Sequence[str], argument: str, column: Any) -> int:
    """Return the place of a column."""
    if isinstance(column, str) and column in names:
        return list(names).index(column)
    if is_count(column, least=-len(names)) and column < len(names):
        return int(column) % len(names)
    raise DataError(
        f"{argument}: {where} has no column {column!r}; it has {short(', '.join(map(repr, names)))}, by name or by place from 0"
    )


def rows_of(
    sources: Sequence[Source],
    *,
    label: Any,
    client: Any,
    features: Any,
    missing: str,
    classes: Any,
    declared: dict[int, Words] | None = None,
) -> Rows:
    """Read the rows of files with the same columns.

    Args:
        sources: the files; train and test are parts; where no column says whose the examples are, each of several others is a client.
        label, client, features: columns.
        missing: "refuse", "drop" or "mean".
        classes: labels are words if it is a list.
        declared: columns whose words are known, in that order.
    """
    first = sources[0]
    for other in sources[1:]:
        if list(other.names) != list(first.names):
            raise DataError(f"{other.file} has the columns {_listed(other.names)}, {first.file} {_listed(first.names)}: make them equal")
    roles = roles_of(first.file, first.names, label, client, features)
    declared = declared or {}
    text = {roles.label: Words({})} if classes is not None and not is_count(classes) else {}
    text |= declared | ({} if roles.client is None else {roles.client: Words({})})
    fill = roles.features if missing == "mean" else ()
    x, rest, counts, words = read(sources, roles.features, roles.others, text, drop=missing == "drop", fill=fill)
    if not len(x):
        raise DataError(f"{first.file} holds no rows{' without a missing value' if missing == 'drop' else ''}: give a file with examples")
    named: dict[int, Sequence[str]] = {}
    for column, values in zip([*roles.features, *roles.others], [*x.T, *rest.T], strict=True):
        if column in words:
            named[column] = _in_order(values, first, column, words[column], declared.get(column))
        if column in words and column in roles.features:
            check_few_words(first.names[column], named[column], words[column].why or f"{named[column][0]!r} in {first.file}")
    held = _held(sources, counts)
    owner: np.ndarray | None = None
    names: Sequence[str] = ()
    if roles.client is not None:
        owner, names = rest[:, 1].astype(np.int32), named[roles.client]
    elif held is None and len(sources) > 1:
        owner, names = _whose(sources, counts)
    return Rows(
        where=str(first.file),
        x=x,
        words={at: named[column] for at, column in enumerate(roles.features) if column in words},
        y=rest[:, 0],
        classes=named.get(roles.label),
        client=owner,
        clients=names,
        held=held,
    )


def _in_order(values: np.ndarray, source: Source, column: int, words: Words, declared: Words | None) -> list[str]:
    """Return a column's words, as declared or in their order as text, and make `values` places in these."""
    found = list(words.place)
    if len(found) > _MOST_CLIENTS:
        raise DataError(
            f"column {source.names[column]!r} of {source.file} has {len(found)} words, and {_MOST_CLIENTS} can be told apart: cut it up"
        )
    if declared is not None and len(found) > len(declared.place):
        strange = found[len(declared.place)]
        raise DataError(
            f"column {source.names[column]!r} of {source.file}, or of a file beside it, holds {strange!r}, which is not declared"
        )
    ordered = sorted(found) if declared is None else found
    rank = {word: i for i, word in enumerate(ordered)}
    values[:] = np.array([rank[word] for word in found], np.float32)[values.astype(int)]
    return ordered


def _held(sources: Sequence[Source], counts: Sequence[int]) -> np.ndarray | None:
    """Return which rows a file called test holds, bool `[rows]`; None where the files are not train and test."""
    stems = [stem(source.file) for source in sources]
    return np.repeat([name == "test" for name in stems], counts) if set(stems) == {"train", "test"} else None


def _whose(sources: Sequence[Source], counts: Sequence[int]) -> tuple[np.ndarray, Sequence[str]]:
    """Return the client of each row and the clients' names, where files are clients."""
    stems = [stem(source.file) for source in sources]
    if len(set(stems)) < len(stems):
        double = next(name for i, name in enumerate(stems) if name in stems[:i])
        raise DataError(
            f"two files beside {sources[0].file} are called {double!r}, and a file is a client: rename one, or name the column `client`"
        )
    return np.repeat(np.arange(len(sources)), counts), stems


def check_few_words(name: str, words: Sequence[str], why: str) -> None:
    """Refuse a feature with many words, which is rather numbers with a mistake among them; `why` is its first word."""
    if len(words) > _MOST_WORDS:
        raise DataError(
            f"column {name!r} has {len(words)} different words, for instance {why}: mend a cell that is no number, or leave the column out "
            "by features="
        )


def check_table_arguments(missing: Any, text: Any) -> None:
    """Refuse an unknown value of `missing` or `text`."""
    for argument, value, choices in (("missing", missing, ("refuse", "drop", "mean")), ("text", text, ("one-hot", "codes"))):
        if value not in choices:
            raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _listed(names: Sequence[str]) -> str:
    """Write the names of columns for an error."""
    return short(f"{len(names)} ({', '.join(names)})", 100)
