"""Load whatever a path holds: recognise its format, and call the reader of that format."""

import inspect
import os
from typing import Any

from fedjax_lite.data.cached import cached
from fedjax_lite.data.recognise import recognise
from fedjax_lite.data.train_test import TrainTest

__all__ = ["load"]


def load(
    path: str | os.PathLike,
    *,
    partition: Any = None,
    test: Any = None,
    seed: Any = 0,
    cache: str | os.PathLike | None = "auto",
    **options_of_the_format: Any,
) -> TrainTest:
    """The data at a path, of any format that `recognise` knows.

    Args:
        path: a file or a folder.
        partition: deals examples to clients, for instance `fl.partition.iid(clients=10)`; needed where files name no clients.
        test: share of its examples that each client holds out, where the files have no test part; None: the default of the format's
            reader. For a store, the held-out examples' store.
        seed: of the partition, and of what is held out.
        cache: where to keep what took long to read, as `cached` takes it; None: nowhere.
        options_of_the_format: the other arguments of the reader, such as `invert` of `leaf`.

    Returns:
        What the reader returns.

    Raises:
        FileNotFoundError: nothing is there.
        DataError: no known format, or more than one; and what the reader refuses.
        ValueError: an argument that the reader does not take, and one that is missing.

    >>> import json, pathlib, tempfile, fedjax_lite as fl
    >>> shard = {"users": ["ann"], "num_samples": [2], "user_data": {"ann": {"x": [[0.0], [1.0]], "y": [0, 1]}}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "shard.json").write_text(json.dumps(shard))
    ...     data = fl.data.load(folder, test=0, invert=True)
    >>> data.train.examples["x"].tolist()
    [[1.0], [0.0]]
    """
    from fedjax_lite import data  # here, since the package exports this function too

    found = recognise(path)
    reader = getattr(data, found.format)
    takes = inspect.signature(reader).parameters
    given = {name: x for name, x in (("partition", partition), ("test", test)) if x is not None} | options_of_the_format
    if unknown := next((name for name in given if name not in takes), None):
        others = ", ".join(name for name in takes if name != "path")
        raise ValueError(f"{unknown}: {path} is read by {found.format} ({found.why}), which takes {others}: leave {unknown} out")
    if found.format == "store" and not isinstance(test, str | os.PathLike | None):
        raise ValueError(f"test: {path} is a store ({found.why}): give the store of the held-out examples, got {test!r}")
    always = {name: x for name, x in (("partition", partition), ("seed", seed)) if name in takes}
    needed = [name for name, each in takes.items() if each.default is each.empty and name not in ("path", *given, *always)]
    if needed:
        raise ValueError(f"{needed[0]}: {path} is read by {found.format} ({found.why}): give {needed[0]}")
    return cached(reader, path, cache=cache, **given | always)
