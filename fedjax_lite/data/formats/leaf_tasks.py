"""What an example is in LEAF's tasks: numbers, characters, the name of an image, a tweet's fields, sequences of words."""

import os
import re
import struct
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.pictures import check_size, decoded
from fedjax_lite.data.formats.reading import folder, regular
from fedjax_lite.data.table import labels, rows
from fedjax_lite.data.text import PAD, SPECIAL, encode, tokens_of, vocabulary_of
from fedjax_lite.refuse import a_count

_NAMED = dict(zip(("<PAD>", "<UNK>", "<BOS>", "<EOS>"), SPECIAL, strict=True))  # Reddit's names of the special tokens, and ours
_TWEET, _TEXT = 6, 4  # a tweet's fields: id, date, query, user, text, tag


class Decoded(NamedTuple):
    """A user's examples: arrays of numbers, or lists of words, which have no numbers before all users are read."""

    x: Any
    y: Any


def decoder(invert: bool, images: str | os.PathLike | None, size: int | None, length: Any) -> Callable[[list, list, str], Decoded]:
    """Return what turns a user's JSON lists x and y into arrays or words; an error names the user by its third argument."""
    where = None if images is None else folder(images, "the images that x names")
    length = a_count("leaf", "length", length)
    both = check_size(size)
    taken: set[str] = set()

    def decode(x: list, y: list, owner: str) -> Decoded:
        if invert and not _are_rows(x):
            raise ValueError(f"invert=True is for numbers, x of {owner} is text")
        if all(isinstance(each, str) for each in x):
            if re.search(r"\.(jpe?g|png)$", x[0]):
                return Decoded(_images(x, owner, where, both, taken), labels(y, owner))
            codes = _codes(x, owner)
            return Decoded(codes, _next_characters(y, owner, codes.shape[1]))
        if isinstance(y[0], dict):
            return _sequences(x, y, owner)
        if isinstance(x[0], list) and len(x[0]) == _TWEET and isinstance(x[0][_TEXT], str):
            return Decoded([_tweet(each, owner, length) for each in x], labels(y, owner))
        array = _numbers(x, owner)
        return Decoded((1 - array if invert else array).astype(np.float32), labels(y, owner))

    return decode


def in_numbers(
    users: Sequence[Decoded], fitted: Sequence[bool], most: Any, owners: Sequence[str]
) -> tuple[list[Decoded], tuple[str, ...] | None]:
    """Number the words of all users by a vocabulary of those `fitted`, as far as this goes; return it where labels are words of it."""
    most = a_count("leaf", "vocabulary", most)
    worded = [isinstance(user.x, list) for user in users]
    if not any(worded):
        return list(users), None
    if not all(worded):
        raise ValueError(f"x of {owners[worded.index(True)]} is words, and that of {owners[worded.index(False)]} is not: make them equal")
    sides = [side for user in users for side in user if isinstance(side, list)]
    training = [side for user in compress(users, fitted) for side in user if isinstance(side, list)]
    known = vocabulary_of(chain.from_iterable(training), most)
    numbers = encode(known, list(chain.from_iterable(chain.from_iterable(sides))))
    cut = iter(np.split(numbers, np.cumsum([len(side) * len(side[0]) for side in sides])[:-1]))

    def array(side: Any) -> np.ndarray:
        return next(cut).reshape(len(side), -1) if isinstance(side, list) else side

    predicted = isinstance(users[0].y, list)
    return [Decoded(array(user.x), array(user.y)) for user in users], known.tokens if predicted else None


def _numbers(x: list, owner: str) -> np.ndarray:
    """Return rows of numbers as an array; pack flat ones in a pass that refuses other values and lengths."""
    try:
        pack = struct.Struct(f"{len(x[0])}d").pack
        array = np.frombuffer(b"".join([pack(*row) for row in x])).reshape(len(x), -1)
        if max(array.max(), -array.min()) <= np.finfo(np.float32).max:
            return array
    except (struct.error, TypeError, ValueError):
        pass  # deeper lists, or a mistake
    return rows(x, "x", owner)


def _are_rows(x: list) -> bool:
    """Return whether a user's x are numbers, as far as the first says."""
    first = x[0] if x else 0
    while isinstance(first, list) and first:
        first = first[0]
    return not isinstance(first, str)


def _codes(texts: list[str], owner: str) -> np.ndarray:
    """Return the Unicode code points of texts of one length, int32 `[texts, characters]`."""
    if not texts[0] or len(set(map(len, texts))) > 1:
        raise ValueError(f"x of {owner} is text of unequal lengths or empty: cut or fill it to one length")
    return np.array(texts, f"<U{len(texts[0])}").view("<u4").reshape(len(texts), -1).astype(np.int32)


def _next_characters(values: list, owner: str, characters: int) -> np.ndarray:
    """Return a user's y beside text: code points if it has one character an example or as many as x, else other labels."""
    y = labels(values, owner)
    lengths = set(map(len, values)) if y.dtype.kind == "O" else set()
    if len(lengths) == 1 and lengths <= {1, characters}:
        codes = _codes(values, owner)
        return codes[:, 0] if codes.shape[1] == 1 else codes
    return y


def _images(names: list[str], owner: str, where: Path | None, size: tuple[int, int] | None, taken: set[str]) -> np.ndarray:
    """Read a user's images; refuse one that another example has, since a short file could name a large image without end."""
    if where is None:
        raise ValueError(f"x of {owner} names image files ({names[0]!r}): give images=, the folder that holds them")
    for name in names:
        if name in taken:
            raise ValueError(f"x of {owner} names the image {name!r}, which an example before it has: remove one of them")
        taken.add(name)
    return decoded([(str(where / name), partial(_bytes, where, name)) for name in names], len(names), size, grey=False)


def _bytes(images: Path, name: str) -> bytes:
    """Read a file of the folder `images`."""
    file = images / name
    if not file.resolve().is_relative_to(images.resolve()):
        raise DataError(f"the image {name!r} is not in {images}: name files of that folder alone")
    if not file.exists():
        raise DataError(f"{images} has no image {name!r}: give the folder that holds it as images=")
    return regular(file).read_bytes()


def _tweet(fields: Any, owner: str, length: int) -> list[str]:
    """Return a tweet's words and marks, cut or filled up to `length`."""
    if not isinstance(fields, list) or len(fields) != _TWEET or not isinstance(fields[_TEXT], str):
        found = f"{len(fields)} values" if isinstance(fields, list) else f"a {type(fields).__name__}"
        raise ValueError(f"x of {owner} must be tweets of {_TWEET} fields, the text the fifth, got {found}")
    words = [*tokens_of(fields[_TEXT], "word")][:length]
    return words + [SPECIAL[PAD]] * (length - len(words))


def _sequences(x: list, y: list, owner: str) -> Decoded:
    """Return the sequences of all comments, and their next words."""
    targets: list[Any] = [each.get("target_tokens") if isinstance(each, dict) else None for each in y]
    for comment, target in zip(x, targets, strict=True):
        if not isinstance(comment, list) or not isinstance(target, list) or len(comment) != len(target):
            raise ValueError(f'x of {owner} must be sequences of words, and y as many in "target_tokens"')
    both = Decoded(list(chain.from_iterable(x)), list(chain.from_iterable(targets)))
    lengths = {len(each) if isinstance(each, list) and all(isinstance(word, str) for word in each) else -1 for each in chain(*both)}
    if len(lengths) != 1 or lengths <= {-1, 0}:
        raise ValueError(f"the sequences of {owner} must be lists of words of one length")
    return Decoded(*([[_NAMED.get(word, word) for word in sequence] for sequence in side] for side in both))
