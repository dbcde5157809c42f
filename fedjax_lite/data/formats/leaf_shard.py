"""A shard of LEAF's JSON, user by user: as Python's objects the numbers of a whole shard take twenty times the memory of arrays."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from fedjax_lite.data.error import DataError

__all__ = ["users_of"]

_AT_ONCE = 2**20  # bytes
_QUOTE, _BACKSLASH, _OPEN, _CLOSE = b'"\\{}'
_USER = 3  # how deep the object of a user lies: in user_data, in the shard


def users_of(file: Path) -> Iterator[tuple[str, dict[str, list]]]:
    """Yield each user of a shard with its {"x", "y"}, once the shard is checked."""
    with open(file, "rb") as stream:
        spans, mark = _objects(stream), secrets.token_hex(8)

        def part(begin: int, end: int) -> bytes:
            stream.seek(begin)
            return stream.read(end - begin)

        ends = [0, *(end for span in spans for end in span), stream.seek(0, os.SEEK_END)]
        between = [part(begin, end) for begin, end in zip(ends[::2], ends[1::2], strict=True)]
        shard = _parsed(file, b"".join([between[0], *(f'"{mark}{i}"'.encode() + some for i, some in enumerate(between[1:]))]))
        counts = _checked(file, shard)
        for user, held in shard["user_data"].items():
            if isinstance(held, str) and held.startswith(mark):
                held = _parsed(file, part(*spans[int(held.removeprefix(mark))]))
            if not isinstance(held, dict) or not all(isinstance(held.get(field), list) for field in ("x", "y")):
                raise DataError(f'user {user!r} in {file} must have a list "x" and a list "y"')
            x, y = held["x"], held["y"]
            # of a Reddit user all parts' shards count the comments of all parts together
            if len(x) != len(y) or len(x) != counts[user] and not (y and isinstance(y[0], dict)):
                raise DataError(
                    f"user {user!r} in {file} has {len(x)} x and {len(y)} y, num_samples says {counts[user]}: the file is damaged"
                )
            yield user, held


def _checked(file: Path, shard: Any) -> dict[str, int | float]:
    """Return how many examples a shard says each user has; refuse what is none."""
    if not isinstance(shard, dict):
        raise DataError(f"{file} is not a LEAF file: it holds a {type(shard).__name__}")
    for key, kind, what in (("users", list, "list"), ("num_samples", list, "list"), ("user_data", dict, "table")):
        if key not in shard:
            raise DataError(f'{file} is not a LEAF file: it has no "{key}"')
        if not isinstance(shard[key], kind):
            raise DataError(f'{file} is not a LEAF file: "{key}" is {_brief(shard[key])}, not a {what}')
    users, counts, data = shard["users"], shard["num_samples"], shard["user_data"]
    for key, values, kinds in (("users", users, str), ("num_samples", counts, int | float)):
        for i, value in enumerate(values):
            if not isinstance(value, kinds) or isinstance(value, bool):
                what = "name" if kinds is str else "number"
                raise DataError(f'{file} is not a LEAF file: "{key}"[{i}] is {_brief(value)}, not a {what}')
    if len(set(users)) != len(users) or set(users) != set(data) or len(counts) != len(users):
        raise DataError(f"{file} lists {len(users)} users and {len(counts)} num_samples for the data of {len(data)} users: it is damaged")
    return dict(zip(users, counts, strict=True))


def _brief(value: Any) -> str:
    """Write a JSON value for an error, in about 40 characters."""
    text = json.dumps(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) < 40 else f"{text[:40]} ..."


def _parsed(file: Path, text: Any) -> Any:
    """Parse JSON, a shard's or a user's."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if error.doc.startswith(("NaN", "Infinity"), error.pos):
            raise DataError(f"{file} holds NaN or Infinity, which is no JSON ({error}): clean or drop such examples") from None
        raise DataError(f"{file} is not complete JSON ({error}): it is cut off or damaged, copy it again") from None


def _objects(stream: Any) -> list[tuple[int, int]]:
    """Return where the objects of users begin and end; nothing where braces do not match, so that the whole is parsed, and refused."""
    places, kinds, begin = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)], 0
    while some := stream.read(_AT_ONCE):
        raw = np.frombuffer(some, np.uint8)
        found = np.flatnonzero((raw == _QUOTE) | (raw == _BACKSLASH) | (raw == _OPEN) | (raw == _CLOSE))
        places.append(found + begin)
        kinds.append(raw[found])
        begin += len(raw)
    place, kind = np.concatenate(places), np.concatenate(kinds)
    quotes = _unescaped(place[kind == _QUOTE], place[kind == _BACKSLASH])
    brace = (kind == _OPEN) | (kind == _CLOSE)
    place, kind = place[brace], kind[brace]
    outside = np.searchsorted(quotes, place) % 2 == 0  # of strings
    place, opens = place[outside], kind[outside] == _OPEN
    depth = np.cumsum(np.where(opens, 1, -1))
    begins, ends = place[opens & (depth == _USER)], place[~opens & (depth == _USER - 1)] + 1
    if len(begins) != len(ends) or (begins >= ends).any():
        return []
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def _unescaped(quotes: np.ndarray, backslashes: np.ndarray) -> np.ndarray:
    """Return the quotes that do not follow an odd number of backslashes."""
    if not len(backslashes):
        return quotes
    first = np.flatnonzero(np.diff(backslashes, prepend=-2) != 1)  # of each run
    before = np.searchsorted(backslashes, quotes) - 1
    follows = (before >= 0) & (backslashes[before] == quotes - 1)
    run = backslashes[first[np.searchsorted(first, before, side="right") - 1]]
    return quotes[~follows | ((quotes - run) % 2 == 0)]
