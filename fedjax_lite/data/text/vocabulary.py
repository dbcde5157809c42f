"""From text to tokens, and from tokens to numbers and back."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.base import Whole
from fedjax_lite.refuse import a_count

__all__ = ["BEGIN", "END", "PAD", "SPECIAL", "UNKNOWN", "Vocabulary", "decode", "encode", "tokens_of", "vocabulary_of"]

PAD, UNKNOWN, BEGIN, END = range(4)  # the first tokens of every vocabulary
SPECIAL = ("<pad>", "<unknown>", "<begin>", "<end>")
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


class Vocabulary(NamedTuple):
    """The tokens that have a number: token i is tokens[i].

    The first four are special: 0 fills a window up, 1 stands for tokens that are not in the vocabulary, 2 and 3 begin and end a text.
    """

    tokens: tuple[str, ...]


def tokens_of(text: str, unit: str) -> Sequence[str]:
    """Cut text into its characters, or into words and marks in lower case.

    Args:
        text: any.
        unit: "character" or "word".

    Raises:
        ValueError: for another unit.

    >>> tokens_of("Let's go!", "word"), tokens_of("Go!", "character")
    (["let's", 'go', '!'], 'Go!')
    """
    if unit not in ("character", "word"):
        raise ValueError(f"unit must be 'character' or 'word', got {unit!r}")
    return text if unit == "character" else _WORD.findall(text.lower())


def vocabulary_of(texts: Iterable[Sequence[str]], size: Whole | None = None) -> Vocabulary:
    """Make a vocabulary of the tokens in texts: the most frequent, in their order as text.

    Args:
        texts: the tokens of each; of training clients alone, so that nothing held out is known.
        size: how many tokens it has at most, beside the four special ones; among equally frequent ones the first as text are taken.

    >>> vocabulary_of(["to be", "or"], size=3).tokens
    ('<pad>', '<unknown>', '<begin>', '<end>', ' ', 'b', 'o')
    """
    counts: Counter[str] = Counter()
    for tokens in texts:
        counts.update(tokens)
    for special in SPECIAL:
        counts.pop(special, None)
    most = len(counts) if size is None else a_count("text", "vocabulary", size)
    kept = sorted(counts, key=lambda token: (-counts[token], token))[:most]
    return Vocabulary((*SPECIAL, *sorted(kept)))


def encode(vocabulary: Vocabulary, tokens: Sequence[str]) -> np.ndarray:
    """Number tokens: characters of a text, or a list of words; int32 `[tokens]`.

    >>> encode(vocabulary_of(["ab"]), "abc").tolist()
    [4, 5, 1]
    """
    place = {token: i for i, token in enumerate(vocabulary.tokens)}
    return np.array([place.get(token, UNKNOWN) for token in tokens], np.int32)


def decode(vocabulary: Vocabulary, numbers: Any, between: str = "") -> str:
    """Write numbers as text again, without what fills up, begins and ends; `between` stands between words.

    Args:
        vocabulary: whose numbers they are; it may be `Vocabulary(data.words)`.
        numbers: int `[tokens]`.
        between: for words " ".

    >>> decode(vocabulary_of(["ab"]), [2, 4, 5, 1, 3, 0])
    'ab<unknown>'
    """
    return between.join(vocabulary.tokens[i] for i in np.asarray(numbers).tolist() if i not in (PAD, BEGIN, END))
