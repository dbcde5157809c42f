"""The table [data] of a configuration: the population, what is held out of it, and what everybody may see."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from fedjax_lite.configuration.config import Config
from fedjax_lite.configuration.registry import call, make, refusing
from fedjax_lite.data import FederatedData, hold_out, noise
from fedjax_lite.data.arrays import client_of, shown, stranger
from fedjax_lite.data.federated import Source, TrainTest
from fedjax_lite.distill.public import check_apart

__all__ = ["load_data", "outputs_of"]

OURS = ("public", "central_test", "labels")  # keys of [data] that no data set takes


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
            source = source._replace(train=rest)
            source = source._replace(test=taken) if name == "central_test" else source._replace(public=taken)
        elif name in ours:
            source = source._replace(public=_public(config, ours[name], source, seed))
    if source.public is not None and source.test is not None:
        with refusing(config, ["data", "public"]):
            check_apart(source.public.examples, source.test.examples)
    if meaning(config, source) != "classes":
        return source
    return source._replace(train=_whole(source.train), test=_whole(source.test), public=_whole(source.public))


def _named(config: Config, table: Any, path: list[str], seed: int) -> Source:
    if isinstance(table, dict) and "partition" in table:
        table = table | {"partition": make(config, "partition", table["partition"], [*path, "partition"])}
    source = make(config, "data", table, path, seed=seed)
    return Source(source.train, source.test) if isinstance(source, TrainTest) else Source(source, None)


def _public(config: Config, table: dict[str, Any], source: Source, seed: int) -> FederatedData:
    """Public examples of another data set, or of noise."""
    path = ["data", "public"]
    if table.get("name") == "noise":
        rest = {"seed": seed} | {name: value for name, value in table.items() if name != "name"}
        return FederatedData.from_clients([call(config, noise, rest, path, {"example": source.example})])
    found = _named(config, {"partition": {"name": "iid", "clients": 1}} | table, path, seed)
    if not isinstance(found.train, FederatedData):
        raise config.error(path, "must be data in memory, not a store on disk")
    if found.words != source.words:
        raise config.error(path, "its labels are other words than those of the clients: number both in one way, or leave its labels out")
    return FederatedData.from_clients([found.train.examples])


def _whole(part: Any) -> Any:
    """A population with its labels as integers; a store stays as it is on disk, since a loss takes classes of any dtype."""
    if not isinstance(part, FederatedData) or "y" not in part.examples or np.issubdtype(part.examples["y"].dtype, np.integer):
        return part
    y = np.asarray(part.examples["y"])
    return part if stranger(y) else replace(part, examples=part.examples | {"y": jnp.asarray(y.astype(np.int32))})


def losses_of(config: Config) -> list[str]:
    """The losses that [model] names."""
    return [table["loss"] for _, table in _tables(config) if "loss" in table]


def _tables(config: Config) -> list[tuple[list[Any], dict[str, Any]]]:
    """The tables that describe models, and where they stand."""
    model = config.values.get("model")
    families = model.get("families") if isinstance(model, dict) else None
    tables = [(["model", "families", k], table) for k, table in enumerate(families)] if isinstance(families, list) else [(["model"], model)]
    return [(path, table) for path, table in tables if isinstance(table, dict)]


def meaning(config: Config, source: Source) -> str | None:
    """What "y" is: "classes" or "numbers", as [data] labels or the loss says; or else classes where all are whole, one an example. None:
    there is none."""
    said, losses = config.values.get("data"), losses_of(config)
    said = said.get("labels") if isinstance(said, dict) else None
    if said not in (None, "classes", "numbers"):
        raise config.error(["data", "labels"], f'must be "classes" or "numbers", got {said!r}')
    for loss, other in (("squared", "classes"), ("softmax", "numbers")):
        if said == other and loss in losses:
            raise config.error(["data", "labels"], f"are {other}, which is not what the loss {loss!r} is for: change one of them")
    if not isinstance(source.example, dict) or "y" not in source.example:
        return None
    if said or losses:
        return said or ("numbers" if "squared" in losses else "classes")
    parts = [np.asarray(part.examples["y"]) for part in (source.train, source.test) if part is not None and "y" in part.examples]
    whole = [y.ndim == 1 and (np.issubdtype(y.dtype, np.integer) or not stranger(y)) for y in parts]
    return "classes" if all(whole) else "numbers"


def outputs_of(config: Config, source: Source) -> tuple[int, str]:
    """How many outputs a model of this data has, and which loss is usual for the kind of its labels."""
    kind = meaning(config, source)
    if kind is None:
        return 1, "softmax"
    if kind == "numbers":
        return int(np.size(source.example["y"])), "squared"
    highest, owner, ignored = 0, "", next((table["ignore"] for _, table in _tables(config) if isinstance(table.get("ignore"), int)), None)
    for name, part in (("the data", source.train), ("the test part", source.test)):
        if part is None:
            continue
        y = np.asarray(part.examples["y"]) if "y" in part.examples else np.zeros(0)
        if found := stranger(y, ignore=ignored):
            row, number = found
            message = (
                f"labels out of range: label {shown(y, row)} of client {client_of(part, row)} of {name} is no class, a whole number "
                f'from 0 ({number} such examples): map the labels, or say labels = "numbers" or model.loss = "squared"'
            )
            raise config.error(["data"], message)
        if y.size and int(y.max()) > highest:
            row = int(np.argmax(y.reshape(len(y), -1).max(axis=1)))
            highest, owner = int(y.max()), f"client {client_of(part, row)} of {name}"
    for path, table in _tables(config):
        for key in ("classes", "outputs"):
            given = table.get(key)
            if isinstance(given, int) and given <= highest:
                message = f"labels out of range: label {highest} of {owner} is none of {key}={given}, whose labels count from 0"
                raise config.error([*path, key], message)
    return highest + 1, "softmax"
