"""The table [data] of a configuration: the population, what is held out of it, and what everybody may see."""

from typing import Any

import numpy as np

from fedjax_lite.config import Config
from fedjax_lite.data import FederatedData, hold_out, noise
from fedjax_lite.data.arrays import labels_of
from fedjax_lite.data.federated import Source, TrainTest
from fedjax_lite.distill.public import check_apart
from fedjax_lite.names import call, make, refusing

__all__ = ["load_data", "outputs_of"]

OURS = ("public", "central_test")  # keys of [data] that no data set takes


def load_data(config: Config, seed: int) -> Source:
    """What [data] names. `central_test` and `public` are taken out of the clients' examples, in this order."""
    whole = config.values["data"]
    table = {name: x for name, x in whole.items() if name not in OURS} if isinstance(whole, dict) else whole
    ours = {name: whole[name] for name in OURS if name in whole} if isinstance(whole, dict) else {}
    source = _named(config, table, ["data"], seed)
    for place, name in enumerate(("central_test", "public")):
        if name in ours and not isinstance(source.train, FederatedData):
            raise config.error(["data", name], "is for data in memory, and this is a store on disk: leave it out")
        if name in ours and not isinstance(ours[name], dict):
            with refusing(config, ["data", name]):
                rest, taken = hold_out(source.train, ours[name], seed=seed + 2**32 * (place + 1))  # apart from the partition's draws
            source = source._replace(train=rest, **{"test" if name == "central_test" else "public": taken})
        elif name in ours:
            source = source._replace(public=_public(config, ours[name], source, seed))
    if source.public is not None and source.test is not None:
        with refusing(config, ["data", "public"]):
            check_apart(source.public.examples, source.test.examples)
    return source


def _named(config: Config, table: Any, path: list[str], seed: int) -> Source:
    if isinstance(table, dict) and "partition" in table:
        table = table | {"partition": make(config, "partition", table["partition"], [*path, "partition"])}
    source = make(config, "data", table, path, seed=seed)
    return Source(*source) if isinstance(source, TrainTest) else Source(source, None)


def _public(config: Config, table: dict[str, Any], source: Source, seed: int) -> FederatedData:
    """Public examples of another data set, or of noise."""
    path = ["data", "public"]
    if table.get("name") == "noise":
        rest = {"seed": seed} | {name: value for name, value in table.items() if name != "name"}
        return FederatedData.from_clients([call(config, noise, rest, path, {"example": source.example})])
    other = _named(config, {"partition": {"name": "iid", "clients": 1}} | table, path, seed).train
    if not isinstance(other, FederatedData):
        raise config.error(path, "must be data in memory, not a store on disk")
    return FederatedData.from_clients([other.examples])


def outputs_of(config: Config, source: Source) -> tuple[int, str]:
    """How many outputs a model of this data has, and which loss is usual for the kind of its labels."""
    target = source.example.get("y") if isinstance(source.example, dict) else None
    labels = [labels_of(part.examples) for part in (source.train, source.test) if part is not None]
    known = [x for x in labels if x is not None]
    if target is None:
        return 1, "softmax"
    if len(known) < len(labels):
        return int(np.size(target)), "squared"
    lowest, highest = min(int(x.min()) for x in known), max(int(x.max()) for x in known)
    if lowest < 0:
        raise config.error(["data"], f"labels out of range: the data has a label {lowest}, they must count from 0")
    return highest + 1, "softmax"
