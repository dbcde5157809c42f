"""The table [model] of a configuration: one model for all clients, or one for each family of clients."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import jax.numpy as jnp

from fedjax_lite import models
from fedjax_lite.configuration.call import call
from fedjax_lite.configuration.code import function_of, is_code, place_of
from fedjax_lite.configuration.data import is_padded
from fedjax_lite.configuration.registry import find, make
from fedjax_lite.configuration.schema import parameters_of
from fedjax_lite.configuration.table import Config, Table
from fedjax_lite.data.noise import counted
from fedjax_lite.data.train_test import Source
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.made import remembering

__all__ = ["Architecture", "architectures", "loss_of", "model_of"]

# Keys of a model's table that its loss takes.
OF_LOSS = ("loss", "ignore", "mean", "top", "class_weights", "label_smoothing", "focal", "class_counts")

OF_START = ("start", "frozen")  # keys of a model's table that its first parameters take


class Architecture(NamedTuple):
    """A model, its loss, and the number of clients that have the model."""

    model: models.Model
    loss_fn: LossFn
    clients: int
    table: Table  # which describes them


def architectures(config: Config, outputs: tuple[int, str], source: Source) -> list[Architecture]:
    """Build the models of [model], one, or one for each family of clients."""
    table, population = config.at("model").without(["seed"]), source.population
    if "families" not in table:
        return [Architecture(*model_of(table, outputs, source), population, table)]
    families = table.at("families")
    if not isinstance(families.value, list) or not families.value or len(table.value) > 1:
        raise families.error('must be a list of models with their clients, such as [{ name = "mlp", hidden = [100], clients = 4 }], alone')
    built = []
    for family in families.items():
        clients = family.get("clients")
        if not isinstance(clients, int) or isinstance(clients, bool) or clients < 1:
            raise family.error(f"give clients, a whole number of at least 1, got {clients!r}")
        if "frozen" in family:
            raise family.error("is for one model, and these are several: leave it out", "frozen")
        built.append(Architecture(*model_of(family.without(["clients"]), outputs, source), clients, family))
    if (total := sum(one.clients for one in built)) != population:
        raise families.error(f"have {total} clients, the data {population}: make them equal")
    return built


def model_of(table: Table, outputs: tuple[int, str], source: Source | None = None) -> tuple[models.Model, LossFn]:
    """Build a model and its loss; by default the data decide both: `outputs` is the number of outputs and the usual loss."""
    most, usual = outputs
    table = table.named()
    find(table, "model")
    for name in ("classes", "outputs"):
        given = table.get(name, most)
        if usual == "softmax" and isinstance(given, int) and given < most:
            raise table.error(f"labels out of range: {name}={given}, the data has {most} classes", name)
    tokens: dict[str, Any] = {"vocabulary": most} if source is not None and source.words else {}
    model = make(table.without([*OF_LOSS, *OF_START]), "model", _remembering, classes=most, outputs=most, **tokens)
    return model, loss_of(table, model, outputs, source)


def _remembering(table: Table) -> tuple[Table, Callable[[Callable], Callable]]:
    """Return a model's table, and what lets a function of the user's code note how it made a model; the library's do so themselves."""
    name = table.named().at("name")
    if not is_code(name.value):
        return table, lambda factory: factory
    return table, lambda factory: remembering(factory, name.value, code=place_of(name))


def loss_of(table: Table, model: models.Model, outputs: tuple[int, str], source: Source | None) -> LossFn:
    """Build the loss that a model's table names; a user's function gets the model, and the keys of the loss's own table."""
    table = table.named()
    own = table.at("loss").named()
    if not isinstance(own.value, dict) or not is_code(own.get("name")):
        loss = table.get("loss", outputs[1])
        if source is not None and loss == "softmax" and "ignore" not in table and is_padded(source):
            table = table.also(ignore=0)
        counts = {} if source is None or "class_counts" not in table else {"class_counts": _counts_of(table, outputs[0], source)}
        return call(table.only(OF_LOSS).also(loss=loss, **counts), models.supervised, {"model": model})
    for key in OF_LOSS[1:]:
        if key in table:
            raise table.error("is for the library's losses: put it in the loss's own table, if it takes it", key)
    factory, given = function_of(own.at("name")), {"model": model}
    if "model" not in {p.name for p in parameters_of(factory)}:
        raise own.error(f"is given the model: write def {factory.__name__}(model, ...)", "name")
    loss_fn = call(own.without(["name"]), factory, given)
    if not callable(loss_fn):
        raise own.error(f"must make a function (params, batch, key) -> losses, and makes {type(loss_fn).__name__}", "name")
    with suppress(AttributeError):  # of a function that takes no note of its model
        setattr(loss_fn, "model", model)
    return loss_fn


def _counts_of(table: Table, classes: int, source: Source) -> Any:
    """Return the numbers of examples of each class: those written, or the training data's own, of each client or of all together."""
    wanted = table.get("class_counts")
    if not isinstance(wanted, str):
        return wanted
    if wanted not in ("own", "all"):
        kinds = '"own", each client\'s, "all", of all clients together, or a list of numbers'
        raise table.error(f"must be {kinds}, got {wanted!r}", "class_counts")
    labels = jnp.asarray(source.train.examples["y"])
    counts = counted(source.train, jnp.where(labels == table.get("ignore", -1), -1, labels), classes)
    return counts if wanted == "own" else jnp.sum(counts, axis=0)
