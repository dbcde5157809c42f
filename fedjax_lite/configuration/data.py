"""The table [data] of a configuration: the population, the test part, and the public examples."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import jax.numpy as jnp
import numpy as np

from fedjax_lite.configuration.call import call, refusing
from fedjax_lite.configuration.config import seed_of
from fedjax_lite.configuration.registry import find, make
from fedjax_lite.configuration.schema import is_path, parameters_of
from fedjax_lite.configuration.table import Config, ConfigError, Table, dotted
from fedjax_lite.data import FederatedData, Recognised, cached, hold_out, hold_out_clients, noise, recognise
from fedjax_lite.data.arrays import client_of, shown, stranger
from fedjax_lite.data.partition import iid
from fedjax_lite.data.text import PAD, SPECIAL
from fedjax_lite.data.train_test import Source, TrainTest
from fedjax_lite.distill.public_set import check_apart

__all__ = ["found_in", "is_padded", "load_data", "outputs_of", "paths_of"]

OF_CLASSES = ("softmax", "binary", "multilabel")  # losses whose labels are classes
OURS = ("public", "central_test", "labels", "hold_out_clients")  # keys of [data] that no data set takes; beside them `seed` and `cache`


def load_data(config: Config, seed: int) -> Source:
    """Load the data that [data] names.

    `hold_out_clients` is taken out of the clients, and `central_test` and `public` out of the others' examples, in this order. Vocabulary,
    means and deviations are those of the clients that are left. The `seed` of [data] decides all that is drawn here; without it the given
    one, the run's, does.
    """
    table = config.at("data")
    seed = seed_of(table, seed)
    source = _named(table.without(OURS), seed)
    if "hold_out_clients" in table:
        left, new = _left(table, source, seed)
        if (fitted := _fitted(table.without(OURS), left.names)) is not None:
            left, new = _left(table, _named(fitted, seed), seed)
        source = source._replace(train=left.train, test=left.test, new=new)
    for place, name in enumerate(("central_test", "public")):
        ours = table.at(name)
        if name in table and not isinstance(source.train, FederatedData):
            raise ours.error("is for data in memory, and this is a store on disk: leave it out")
        if name in table and not isinstance(ours.value, dict):
            with refusing(ours):
                rest, taken = hold_out(source.train, ours.value, seed=seed + 2**32 * (place + 1))  # not the partition's seed
            source = source._replace(train=rest)
            source = source._replace(test=taken) if name == "central_test" else source._replace(public=taken)
        elif name in table:
            source = source._replace(public=_public(ours, source, seed))
    if source.public is not None and source.test is not None:
        with refusing(table.at("public")):
            check_apart(source.public.examples, source.test.examples)
    if meaning(config, source) != "classes":
        return source
    apart = None if source.new is None else TrainTest(*map(_whole, source.new))
    return source._replace(train=_whole(source.train), test=_whole(source.test), public=_whole(source.public), new=apart)


def _left(table: Table, source: Source, seed: int) -> tuple[TrainTest, TrainTest]:
    """Return the clients that are left, and those that `hold_out_clients` keeps apart."""
    with refusing(table.at("hold_out_clients")):
        return hold_out_clients(TrainTest(source.train, source.test), table.get("hold_out_clients"), seed=seed + 3 * 2**32)


def _fitted(table: Table, names: Sequence[str] | None) -> Table | None:
    """Return a data set's table that fits to the clients `names` alone; None where nothing is fitted to any, or the table says whom."""
    if isinstance(table.get("inner"), dict):
        inner = _fitted(table.at("inner"), names)
        return inner and table.also(inner=inner.value)
    reader = find(_recognised(table)[0], "data")[0]
    fits = any(p.name == "fit_on" for p in parameters_of(reader))
    return table.also(fit_on=list(names)) if fits and names is not None and "fit_on" not in table else None


def paths_of(config: Config) -> dict[str, str | list[str]]:
    """Return the absolute paths in [data], [model] start, [clock] and [sampling] law, by the dotted key of each; a list of several."""
    named = [(table, find(_recognised(table)[0], "data")[0]) for table in _tables(config)]
    for path, kind in (
        (("clock", "devices"), "devices"),
        (("clock", "availability"), "availability"),
        (("sampling", "law"), "availability"),
    ):
        if (table := config.at(*path).named()).value is not None:
            named.append((table, find(table, kind)[0]))
    paths = [
        table.at(key) for table, factory in named for p in parameters_of(factory) if (key := p.name) in table and is_path(p.annotation)
    ]
    paths += [table.at("cache") for table in _tables(config) if isinstance(table.get("cache"), str) and table.get("cache") != "auto"]
    start = config.at("model", "start")
    paths += [each for each in (start, start.at("path")) if isinstance(each.value, str)]
    return {dotted(each.path): _absolute(each) for each in paths}


def _absolute(path: Table) -> str | list[str]:
    """Return the absolute path that a text names, or those of a list of texts."""
    return [str(each.file().resolve()) for each in path.items()] if isinstance(path.value, list) else str(path.file().resolve())


def found_in(config: Config) -> list[str]:
    """Return a line on each path whose format [data] leaves open: what is there, and why."""
    return _found(_tables(config))


def _found(tables: Sequence[Table]) -> list[str]:
    """Return a line on each of the tables whose format is left open."""
    found = [(table, _recognised(table)[1]) for table in tables]
    return [f"{table.get('path')} is read by {what.format}: {what.why}" for table, what in found if what]


def _tables(config: Config) -> list[Table]:
    """Return the tables that name data sets: [data] and its public examples, with those inside."""
    tops = config.at("data"), config.at("data", "public")
    return [table for top in tops for table in _sets(top) if table.get("name") != "noise"]


def _sets(table: Table) -> list[Table]:
    """Return the table of a data set, and those of data sets inside it."""
    return [table, *_sets(table.at("inner"))] if isinstance(table.value, dict) and "name" in table else []


def _recognised(table: Table) -> tuple[Table, Recognised | None]:
    """Return the table under the name of the format that its path holds, and what tells it, where its name is "load"."""
    if table.get("name") != "load" or not isinstance(table.get("path"), str):
        return table, None
    with refusing(table.at("path")):
        found = recognise(table.at("path").file())
    return table.also(name=found.format), found


def _named(table: Table, seed: int, **defaults: Any) -> Source:
    """Load the data set that a table names, as a Source without public examples."""
    seed = seed_of(table, seed)
    try:
        source = make(table.without(["seed"]), "data", _prepared, seed=seed, **defaults)
    except ConfigError as error:
        found = _found(_sets(table))
        raise ConfigError(f"{error} ({'; '.join(found)})") if found else error from error
    return Source(source.train, source.test) if isinstance(source, TrainTest) else Source(source, None)


def _prepared(table: Table) -> tuple[Table, Callable[[Callable], Callable]]:
    """Return a data set's table under the name of its format, and what lets its reader look into the cache, where it has one."""
    cache = _cache_of(table)
    return _recognised(table.without(["cache"]))[0], partial(_kept, cache=cache)


def _cache_of(table: Table) -> Any:
    """Return where what a table names is kept once it is read: a folder, "auto", or None for nowhere.

    Raises:
        ConfigError: for another value, and for data that is not read from a path.
    """
    cache = table.get("cache", "auto" if table.get("name") == "load" else False)
    if cache is not False and (not isinstance(cache, str) or not cache):
        raise table.error(f'must be "auto", a folder, or false, got {cache!r}', "cache")
    if cache and "cache" in table and "path" not in table:
        raise table.error("is for data that is read from a path: leave it out", "cache")
    return None if not cache else cache if cache == "auto" else table.at("cache").file()


def _kept(reader: Callable[..., Any], cache: Any) -> Callable[..., Any]:
    """Return a reader that looks into the cache first, where there is one, of the same signature."""
    if not cache:
        return reader

    @wraps(reader)
    def read(path: Any, **arguments: Any) -> Any:
        return cached(reader, path, cache=cache, **arguments)

    return read


def _public(table: Table, source: Source, seed: int) -> FederatedData:
    """Make public examples from another data set, or of noise."""
    if table.get("name") == "noise":
        noisy = table.without(["name"]).also(seed=seed_of(table, seed))
        return FederatedData.from_clients([call(noisy, noise, {"example": source.example})])
    other = _named(table, seed, partition=iid(1))
    if not isinstance(other.train, FederatedData):
        raise table.error("must be data in memory, not a store on disk")
    if other.words != source.words:
        raise table.error("its labels are other words than those of the clients: number both in one way, or leave its labels out")
    return FederatedData.from_clients([other.train.examples])


def _whole(part: Any) -> Any:
    """Cast a population's whole labels to int32; a store stays as it is, since losses take classes of every dtype."""
    if not isinstance(part, FederatedData) or "y" not in part.examples or np.issubdtype(part.examples["y"].dtype, np.integer):
        return part
    y = np.asarray(part.examples["y"])
    return part if stranger(y) else replace(part, examples=part.examples | {"y": jnp.asarray(y.astype(np.int32))})


def losses_of(config: Config) -> list[Any]:
    """Return the losses that [model] names."""
    return [table.get("loss") for table in _models(config) if "loss" in table]


def _models(config: Config) -> list[Table]:
    """Return the tables that describe models: [model], or its families."""
    model = config.at("model")
    tables = model.at("families").items() if isinstance(model.get("families"), list) else [model]
    return [table for table in tables if isinstance(table.value, dict)]


def meaning(config: Config, source: Source) -> str | None:
    """Return the meaning of "y", "classes" or "numbers"; None where examples have no "y".

    The key `labels` of [data] or the loss decides; otherwise "y" holds classes if they are words, or if each example has one whole number.
    """
    labels, losses = config.at("data", "labels"), losses_of(config)
    if labels.value not in (None, "classes", "numbers"):
        raise labels.error(f'must be "classes" or "numbers", got {labels.value!r}')
    for loss, other in (("squared", "classes"), *((loss, "numbers") for loss in OF_CLASSES)):
        if labels.value == other and loss in losses:
            raise labels.error(f"are {other}, which is not what the loss {loss!r} is for: change one of them")
    if not isinstance(source.example, dict) or "y" not in source.example:
        return None
    if labels.value or "squared" in losses or any(loss in OF_CLASSES for loss in losses):
        return labels.value or ("numbers" if "squared" in losses else "classes")
    if source.words is not None:
        return "classes"
    parts = [np.asarray(part.examples["y"]) for part in (source.train, source.test) if part is not None and "y" in part.examples]
    whole = [y.ndim == 1 and (np.issubdtype(y.dtype, np.integer) or not stranger(y)) for y in parts]
    return "classes" if all(whole) else "numbers"


def is_padded(source: Source) -> bool:
    """Return whether labels are sequences of words that the word 0 fills up."""
    first = (source.words or ("",))[0]
    return first.lower() == SPECIAL[PAD] and np.ndim(source.example["y"]) > 0


def outputs_of(config: Config, source: Source) -> tuple[int, str]:
    """Return the number of outputs that a model of this data has, and the usual loss for the meaning of its labels."""
    kind = meaning(config, source)
    if kind is None:
        return 1, "softmax"
    if kind == "numbers":
        return int(np.size(source.example["y"])), "squared"
    if sigmoid := [loss for loss in losses_of(config) if loss in OF_CLASSES[1:]]:
        return (1 if sigmoid[0] == "binary" else int(np.size(source.example["y"]))), sigmoid[0]
    ignored = next((table.get("ignore") for table in _models(config) if isinstance(table.get("ignore"), int)), None)
    highest, owner = 0, ""
    named = [("the data", source.train), ("the test part", source.test)]
    named += [] if source.new is None else [("the clients held out", source.new.train), ("their test part", source.new.test)]
    for name, part in named:
        if part is None:
            continue
        y = np.asarray(part.examples["y"]) if "y" in part.examples else np.zeros(0)
        if wrong := stranger(y, ignore=ignored):
            row, number = wrong
            message = (
                f"labels out of range: label {shown(y, row)} of client {client_of(part, row)} of {name} is no class, a whole number "
                f'from 0 ({number} such examples): map the labels, or say labels = "numbers" or model.loss = "squared"'
            )
            raise config.at("data").error(message)
        if y.size and int(y.max()) > highest:
            row = int(np.argmax(y.reshape(len(y), -1).max(axis=1)))
            highest, owner = int(y.max()), f"client {client_of(part, row)} of {name}"
    for table in _models(config):
        for key in ("classes", "outputs"):
            given = table.get(key)
            if isinstance(given, int) and given <= highest:
                message = f"labels out of range: label {highest} of {owner} is none of {key}={given}, whose labels count from 0"
                raise table.error(message, key)
    return max(highest + 1, len(source.words or ())), "softmax"
