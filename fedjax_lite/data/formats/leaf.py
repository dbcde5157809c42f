"""LEAF's JSON folders: natural clients (writers, roles, accounts), each with its own train and test examples."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.table import joined, labels, numbered, rows
from fedjax_lite.data.train_test import TrainTest


def leaf(path: str | os.PathLike, *, invert: bool = False) -> TrainTest:
    """A LEAF data set: any number of *.json shards in path/train and path/test, or in `path` itself.

    Clients are the users of the train part, sorted by name as text ("f10" before "f9"). Client i of both parts is one user; a user
    that the test part lacks has 0 examples there. Where no user of the test part trains (LEAF's `-t user`), the test
    part is one central set (population 1). Where only some of its users train, shards are missing, and that is an error.

    Args:
        path: folder with train/ and, if there is one, test/; or a folder of shards, which gives no test part.
        invert: give 1 - x. FEMNIST on disk is black ink (0) on a white page (1); FedJAX and others train on the inverse.

    Returns:
        TrainTest. Examples: "x" float32, of the shape of the numbers on disk (FEMNIST `[784]`); "y" int32, float32 if any of either
        part is not an integer. Text x of equal lengths (Shakespeare) becomes int32 Unicode code points `[characters]`, and so does text y
        beside it of one character (one number) or of as many as x. Other text y are class names: words, numbered in their order as
        text over both parts and listed in `words` of the result. The files' other fields are not read.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: naming file and user: no shards, a file cut off in the middle or of another form, counts that disagree, a user in two
            places or without examples, x and y of unequal length, things that are neither numbers nor text, words beside numbers.

    >>> import json, pathlib, tempfile, fedjax_lite as fl
    >>> ann, bob = {"x": [[0.0], [1.0]], "y": [0, 1]}, {"x": [[0.25]], "y": [1]}
    >>> shard = {"users": ["ann", "bob"], "num_samples": [2, 1], "user_data": {"ann": ann, "bob": bob}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "shard.json").write_text(json.dumps(shard))
    ...     data = fl.data.leaf(folder, invert=True)
    >>> data.train.size.tolist(), data.train.examples["x"].tolist()
    ([2, 1], [[1.0], [0.0], [0.75]])

    Source: Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings".
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"path={str(path)!r} is not a folder: give the one that holds train/ and test/")
    split = (path / "train").is_dir()
    train = _read(path / "train" if split else path, invert)
    test = _read(path / "test", invert, allow_empty=True) if split and (path / "test").is_dir() else _Part([], [], [])
    owners = [f"user {user!r}" for user in train.users + test.users]
    y, words = numbered(train.y + test.y, owners)
    clients = joined(train.x + test.x, y, owners)
    population, held = clients[: len(train.users)], clients[len(train.users) :]
    parts = FederatedData.from_clients(population), _aligned(train.users, test.users, held) if held else None
    return TrainTest(*(part and replace(part, words=words) for part in parts))


class _Part(NamedTuple):
    """The users of one part, sorted by name, with their x and y."""

    users: list[str]
    x: list[np.ndarray]
    y: list[np.ndarray]


def _read(folder, invert, allow_empty=False) -> _Part:
    """Read all shards of a folder; leave users without examples out if `allow_empty`, else refuse them."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ValueError(f"{folder} holds no *.json files: give LEAF's folder, with its shards in train/ and test/")
    source: dict[str, Path] = {}
    x, y = {}, {}
    for file in files:
        for user, data in _users(file):
            if user in source:
                raise ValueError(f"user {user!r} is both in {source[user]} and in {file}: remove one of them")
            source[user] = file
            if not data["y"] and not data["x"]:
                if not allow_empty:
                    raise ValueError(f"user {user!r} in {file} has no examples: remove it, or preprocess with LEAF's -k 1")
                continue
            x[user] = _inputs(data["x"], user, invert)
            y[user] = _labels(data["y"], user, x[user])
    users = sorted(x)
    if not users:
        raise ValueError(f"{folder} holds no examples")
    return _Part(users, [x[user] for user in users], [y[user] for user in users])


def _users(file):
    """Yield each user of a shard with its {"x", "y"}, once the shard is checked."""
    try:
        shard = json.loads(file.read_bytes())
    except RecursionError:
        raise ValueError(f"{file} is not a LEAF file: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{file} is not complete JSON ({error}): it is cut off or damaged, copy it again") from None
    if not isinstance(shard, dict):
        raise ValueError(f"{file} is not a LEAF file: it holds a {type(shard).__name__}")
    for key, kind, what in (("users", list, "list"), ("num_samples", list, "list"), ("user_data", dict, "table")):
        if key not in shard:
            raise ValueError(f'{file} is not a LEAF file: it has no "{key}"')
        if not isinstance(shard[key], kind):
            raise ValueError(f'{file} is not a LEAF file: "{key}" is {_brief(shard[key])}, not a {what}')
    users, counts, data = shard["users"], shard["num_samples"], shard["user_data"]
    for key, values, kinds in (("users", users, str), ("num_samples", counts, int | float)):
        for i, value in enumerate(values):
            if not isinstance(value, kinds) or isinstance(value, bool):
                what = "name" if kinds is str else "number"
                raise ValueError(f'{file} is not a LEAF file: "{key}"[{i}] is {_brief(value)}, not a {what}')
    if len(set(users)) != len(users) or set(users) != set(data) or len(counts) != len(users):
        raise ValueError(f"{file} lists {len(users)} users and {len(counts)} num_samples for the data of {len(data)} users: it is damaged")
    for user, count in zip(users, counts, strict=True):
        if not isinstance(data[user], dict) or not all(isinstance(data[user].get(field), list) for field in ("x", "y")):
            raise ValueError(f'user {user!r} in {file} must have a list "x" and a list "y"')
        if len(data[user]["x"]) != count or len(data[user]["y"]) != count:
            found = f"{len(data[user]['x'])} x and {len(data[user]['y'])} y"
            raise ValueError(f"user {user!r} in {file} has {found}, num_samples says {count}: the file is damaged")
        yield user, data[user]


def _brief(value: Any) -> str:
    """Write a JSON value for an error, in about 40 characters."""
    text = json.dumps(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) < 40 else f"{text[:40]} ..."


def _inputs(values: list, user: str, invert: bool) -> np.ndarray:
    """Return a user's x: numbers as float32, text as int32 code points `[examples, characters]`."""
    if not all(isinstance(value, str) for value in values):
        array = rows(values, "x", f"user {user!r}")
        return (1 - array if invert else array).astype(np.float32)
    if invert:
        raise ValueError(f"invert=True is for numbers, x of user {user!r} is text")
    if re.search(r"\.(jpe?g|png)$", values[0]):
        raise ValueError(f"x of user {user!r} names image files ({values[0]!r}): read the images and use FederatedData.from_clients")
    if not values[0] or len(set(map(len, values))) > 1:
        raise ValueError(f"x of user {user!r} is text of unequal lengths or empty: cut or fill it to one length")
    return _codes(values)


def _labels(values: list, user: str, x: np.ndarray) -> np.ndarray:
    """Return a user's y: numbers, or words; code points where x is text and y has one character or x's length."""
    y = labels(values, f"user {user!r}")
    lengths = set(map(len, values)) if y.dtype.kind == "U" else set()
    if x.dtype == np.int32 and len(lengths) == 1 and lengths <= {1, x.shape[1]}:
        codes = _codes(values)
        return codes[:, 0] if codes.shape[1] == 1 else codes
    return y


def _codes(values: list[str]) -> np.ndarray:
    """Return the Unicode code points of texts of one length, int32 `[texts, characters]`."""
    length = len(values[0])
    return np.array(values, f"<U{length}").view("<u4").reshape(len(values), length).astype(np.int32)


def _aligned(names, test_names, test) -> FederatedData:
    """Return the test part with a client for each train user; if it has no train user, as one central set."""
    strangers = sorted(set(test_names) - set(names))
    if len(strangers) == len(test_names):
        return FederatedData.from_clients([{key: np.concatenate([user[key] for user in test]) for key in test[0]}])
    if strangers:
        raise ValueError(
            f"{len(strangers)} of {len(test_names)} users of the test part, such as {strangers[0]!r}, are not in the train part: "
            "add the missing train shards, or move those users' files away"
        )
    held = dict(zip(test_names, test, strict=True))
    empty = {key: array[:0] for key, array in test[0].items()}
    return FederatedData.from_clients([held.get(name, empty) for name in names], allow_empty=True)
