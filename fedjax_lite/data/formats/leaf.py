"""LEAF's JSON folders: natural clients (writers, roles, accounts), each with its own train and test examples."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.leaf_shard import users_of
from fedjax_lite.data.formats.leaf_tasks import Decoded, decoder, in_numbers
from fedjax_lite.data.formats.parts import part_of
from fedjax_lite.data.formats.reading import folder, reading, regular
from fedjax_lite.data.names import to_fit
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.table import joined, numbered
from fedjax_lite.data.train_test import TrainTest


def leaf(
    path: str | os.PathLike,
    *,
    invert: bool = False,
    images: str | os.PathLike | None = None,
    size: int | None = None,
    vocabulary: Whole = 10_000,
    length: Whole = 25,
    fit_on: Sequence[str] | None = None,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """A LEAF data set: any number of *.json shards in path/train and path/test, or in `path` itself.

    Clients are the users of the train part, sorted by name as text ("f10" before "f9"), or as numbers where all are. Client i of both
    parts is one user; a user that the test part lacks has 0 examples there. Where no user of the test part trains (LEAF's `-t user`), the
    test part is one central set (population 1). Where only some of its users train, shards are missing, and that is an error.

    Args:
        path: folder with train/ and, if there is one, test/; or a folder of shards, which gives no test part.
        invert: give 1 - x. FEMNIST on disk is black ink (0) on a white page (1); FedJAX and others train on the inverse.
        images: CelebA's folder of images, which the x of its shards name; needs Pillow (pip install 'fedjax_lite[images]').
        size: height and width that images are resized to (bicubic), such as LEAF's 84; None: as they are, all of one size.
        vocabulary: of words (Sent140, Reddit), how many have a number beside the four special tokens (`fl.data.vocabulary_of`): the
            most frequent of the training clients; 0 is padding, 1 a word that has none.
        length: words that a tweet of Sent140 is cut or filled up to.
        fit_on: names of the users whose training examples the vocabulary is of; by default all.
        partition: deals the examples of all users anew; None: each user is a client.
        test, seed: the share that each client holds out where the folder has no test part, and the seed of that.

    Returns:
        TrainTest. Examples by what the shards hold:
        numbers (FEMNIST `[784]`, synthetic `[60]`): "x" float32; "y" int32, float32 if any of either part is not an integer;
        text of equal lengths (Shakespeare): "x" int32 Unicode code points `[characters]`, and so is text y beside it of one character
        (one number) or of as many as x;
        names of images (CelebA): "x" float32 `[height, width, 3]` in [0, 1];
        tweets of six fields (Sent140): "x" int32 words `[length]`, in lower case, marks apart;
        comments in sequences (Reddit): each sequence is an example, "x" and "y", the next words, int32 `[10]`; label 0 is padding.
        Other text y are class names: numbered in their order as text over both parts and listed in `words` of the result. Of
        Reddit `words` is the vocabulary. The files' other fields, and a folder val/, are not read.

    Raises:
        FileNotFoundError: no such folder.
        DataError: naming file and user: no shards, a file cut off in the middle or of another form, counts that disagree, a user in two
            places or without examples, x and y of unequal length, things that are neither numbers nor text, words beside numbers,
            an image that is not in the folder.

    >>> import json, pathlib, tempfile, fedjax_lite as fl
    >>> ann, bob = {"x": [[0.0], [1.0]], "y": [0, 1]}, {"x": [[0.25]], "y": [1]}
    >>> shard = {"users": ["ann", "bob"], "num_samples": [2, 1], "user_data": {"ann": ann, "bob": bob}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "shard.json").write_text(json.dumps(shard))
    ...     data = fl.data.leaf(folder, invert=True, test=0)
    >>> data.names, data.train.size.tolist(), data.train.examples["x"].tolist()
    (Names(2 clients: ann, bob), [2, 1], [[1.0], [0.0], [0.75]])

    Source: Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings".
    """
    path = folder(path, "train/ and test/")
    decode = decoder(invert, images, size, length)
    split = (path / "train").is_dir()
    train = _read(path / "train" if split else path, decode)
    held = _read(path / "test", decode, allow_empty=True) if split and (path / "test").is_dir() else []
    names = [user.name for user in train]
    fitted = [True] * len(names) if fit_on is None else to_fit(None if partition else names, fit_on)
    parts, words = _in_parts(train, held, fitted, vocabulary, path)
    del train, held  # the parts are a copy of them
    return arrange(*parts, partition=partition, share=test, seed=seed, words=words)


class _User(NamedTuple):
    """One user of one part."""

    name: str
    owner: str  # user and file, for errors
    x: Any
    y: Any


def _in_parts(
    train: list[_User], held: list[_User], fitted: list[bool], vocabulary: Whole, path: Path
) -> tuple[list[Part], tuple[str, ...] | None]:
    """Number the users' words alike in both parts, and make the parts; return them with the class names."""
    users, owners = train + held, [user.owner for user in train + held]
    with reading(path):
        pairs, words = in_numbers([Decoded(user.x, user.y) for user in users], fitted, vocabulary, owners)
        y, classes = numbered([pair.y for pair in pairs], owners)
        clients = joined([pair.x for pair in pairs], y, owners)
    both = (train, clients[: len(train)], path), (held, clients[len(train) :], path / "test")
    parts = [part_of({user.name: client for user, client in zip(part, some, strict=True)}, where) for part, some, where in both if part]
    return parts, words if classes is None else classes


def _read(path: Path, decode: Callable[..., Decoded], allow_empty: bool = False) -> list[_User]:
    """Read all shards of a folder; leave users without examples out if `allow_empty`, else refuse them."""
    files = sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"{path} holds no *.json files: give LEAF's folder, with its shards in train/ and test/")
    source: dict[str, Path] = {}
    users = []
    for file in files:
        for user, data in users_of(regular(file)):
            if user in source:
                raise DataError(f"user {user!r} is both in {source[user]} and in {file}: remove one of them")
            source[user] = file
            if not data["y"] and not data["x"]:
                if not allow_empty:
                    raise DataError(f"user {user!r} in {file} has no examples: remove it, or preprocess with LEAF's -k 1")
                continue
            owner = f"user {user!r} in {file}"
            with reading(file):
                users.append(_User(user, owner, *decode(data["x"], data["y"], owner)))
    if not users:
        raise DataError(f"{path} holds no examples")
    return sorted(users, key=lambda user: user.name)
