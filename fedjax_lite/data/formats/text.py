"""Plain text: speakers of a play, the files of a folder, or lines."""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from pathlib import Path

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.deal import check_fraction
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.reading import files_of, stem
from fedjax_lite.data.formats.text_pieces import pieces
from fedjax_lite.data.names import to_fit
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.text import BEGIN, END, Vocabulary, encode, tokens_of, vocabulary_of, windows
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.refuse import a_count

_SPEAKER = re.compile(r"(\S[^:]*):\s*")


def text(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    by: str,
    unit: str = "character",
    length: Whole = 80,
    vocabulary: Whole | None = None,
    least: Whole = 1,
    fit_on: Sequence[str] | None = None,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """Next-character or next-word prediction on plain text, whose clients are speakers or files.

    A client's text is one sequence of tokens, <begin> t_1 ... t_n <end>. Its last floor(n * test) tokens are its test part, and both parts
    are cut into windows that do not overlap (`windows`), so that no window has tokens of both. The vocabulary is that of the training
    part, and stands in `words`: label i is token i, and 0 (<pad>) fills windows up: train with `ignore = 0` in [model].

    Args:
        path: a UTF-8 file, several, or a folder of .txt files; .gz is unpacked.
        by: whose text it is. "speaker": blocks between empty lines, each below a line `NAME:`. "file": a file is a client, called like it
            without its ending. "line": each line is a text of its own and no one's, dealt by `partition`.
        unit: "character", or "word": words and marks, in lower case.
        length: tokens of a window.
        vocabulary: how many tokens it has at most beside the four special ones, the most frequent; others are <unknown>. None: all.
        least: clients with fewer tokens than this are left out; at least 1.
        fit_on: names of the clients whose training text the vocabulary is of; by default all.
        partition: deals the training windows to clients; the test parts are then one central set.
        test: share of each client's text that is held out, in [0, 1); of lines, share of the windows.
        seed: of the partition, and of which windows of lines are held out; texts are cut without drawing.

    Returns:
        TrainTest. Examples: "x" and "y" int32 `[length]`.

    Raises:
        FileNotFoundError: no such file, or a folder without .txt files.
        DataError: naming the file and line: no UTF-8 text, text before the first speaker; no client with enough tokens.

    >>> import pathlib, tempfile, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "play.txt").write_text("ANN:\\nTo be\\n\\nBOB:\\nNo.\\n\\nANN:\\nor not\\n")
    ...     data = fl.data.text(folder, by="speaker", length=16, test=0)
    >>> data.names, len(data.words), fl.data.decode(fl.data.Vocabulary(data.words), data.train.client(0)["y"][0])
    (Names(2 clients: ANN, BOB), 15, 'To be\\nor not')

    Source: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", section 3 (by speaker).
    """
    if by not in ("speaker", "file", "line"):
        raise ValueError(f"by must be 'speaker', 'file' or 'line', got {by!r}")
    check_fraction(test)
    length, least = a_count("text", "length", length), a_count("text", "least", least)
    files = files_of(path, (".txt",))
    tokens = {name: found for name, some in _texts(files, by).items() if len(found := tokens_of(some, unit)) >= least}
    if not tokens:
        raise DataError(f"{files[0]}: no {by} has {least} tokens: lower least")
    share = 0 if by == "line" else test
    cut = {name: len(found) - int(len(found) * share + 1e-9) for name, found in tokens.items()}
    names = list(tokens)
    fitted = names if fit_on is None else compress(names, to_fit(None if partition or by == "line" else names, fit_on))
    known = vocabulary_of((tokens[name][: cut[name]] for name in fitted), vocabulary)
    numbers = dict(zip(tokens, _numbered(known, tokens.values()), strict=True))
    train = {name: all_of[: cut[name] + (1 if cut[name] < len(tokens[name]) else 2)] for name, all_of in numbers.items()}
    held = {name: all_of[1 + cut[name] :] for name, all_of in numbers.items() if cut[name] < len(tokens[name])}
    if share and not held:
        raise ValueError(f"test={test:.3g} holds nothing out, the longest text has {max(map(len, tokens.values()))} tokens: raise test")
    parts = [_part(part, length, by) for part in (train, held) if part]
    return arrange(*parts, partition=partition, share=test - share, seed=seed, words=known.tokens)


def _texts(files: Sequence[Path], by: str) -> dict[str, str]:
    """Return the text of each speaker, file or line, by its name."""
    found: dict[str, list[str]] = {}
    if by == "file" and len({stem(file) for file in files}) < len(files):
        raise DataError(f"{files[0].parent}: two files have one name, and a file is a client: rename one")
    for file in files:
        speaker, begins = None, True
        for piece in pieces(file):
            for number, line in enumerate(piece.lines, piece.line):
                if by == "file":
                    found.setdefault(stem(file), []).append(line)
                elif by == "line" and line.strip():
                    found[f"{file}, line {number}"] = [line]
                elif by == "speaker" and begins and (named := _SPEAKER.fullmatch(line.strip())):
                    speaker = named[1]
                    found.setdefault(speaker, [])
                elif by == "speaker" and line.strip():
                    if speaker is None:
                        raise DataError(f"{file}, line {number}: text before the first speaker, a line NAME: after an empty one: give by=")
                    found[speaker].append(line)
                begins = not line.strip()
    return {name: "".join(lines).strip() for name, lines in found.items()}


def _numbered(known: Vocabulary, texts: Iterable[Sequence[str]]) -> list[np.ndarray]:
    """Number the tokens of texts, each between <begin> and <end>."""
    texts = list(texts)
    ends = np.cumsum([len(tokens) for tokens in texts])
    numbers = np.split(encode(known, list(chain.from_iterable(texts))), ends[:-1])
    return [np.concatenate([[BEGIN], each, [END]]).astype(np.int32) for each in numbers]


def _part(numbers: dict[str, np.ndarray], length: int, by: str) -> Part:
    """Cut the texts of a part into windows."""
    cut = [windows(each, length) for each in numbers.values()]
    examples = {leaf: np.concatenate([each[leaf] for each in cut]) for leaf in ("x", "y")}
    if by == "line":
        return Part(examples)
    return Part(examples, np.repeat(np.arange(len(cut)), [len(each["x"]) for each in cut]), list(numbers))
