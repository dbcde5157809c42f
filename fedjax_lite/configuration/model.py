"""The table [model] of a configuration: one model for all clients, or one for each family of clients."""

from typing import Any, NamedTuple

from fedjax_lite import models
from fedjax_lite.configuration.config import Config, Where
from fedjax_lite.configuration.registry import call, find, make
from fedjax_lite.models.loss_fn import LossFn

OF_LOSS = ("loss", "ignore", "mean")  # keys of a model's table that are its loss's
__all__ = ["Architecture", "architectures", "model_of"]


class Architecture(NamedTuple):
    """A model, its loss, and how many clients have it."""

    model: models.Model
    loss_fn: LossFn
    clients: int


def architectures(config: Config, outputs: tuple[int, str], population: int) -> tuple[list[Architecture], bool]:
    """The models of [model], and whether they are families."""
    table, path = config.values["model"], ["model", "families"]
    if not isinstance(table, dict) or "families" not in table:
        return [Architecture(*model_of(config, table, ["model"], outputs), population)], False
    families = table["families"]
    if not isinstance(families, list) or not families or len(table) > 1:
        raise config.error(
            path, 'must be a list of models with their clients, such as [{ name = "mlp", hidden = [100], clients = 4 }], alone'
        )
    found = []
    for k, family in enumerate(families):
        clients = family.get("clients") if isinstance(family, dict) else None
        if not isinstance(clients, int) or isinstance(clients, bool) or clients < 1:
            raise config.error([*path, k], f"give clients, a whole number of at least 1, got {clients!r}")
        rest = {name: value for name, value in family.items() if name != "clients"}
        found.append(Architecture(*model_of(config, rest, [*path, k], outputs), clients))
    if (total := sum(one.clients for one in found)) != population:
        raise config.error(path, f"have {total} clients, the data {population}: make them equal")
    return found, True


def model_of(config: Config, table: Any, path: Where, outputs: tuple[int, str]) -> tuple[models.Model, LossFn]:
    """A model and its loss: how many outputs comes from the data, which loss from the kind of its labels."""
    most, usual = outputs
    table = {"name": table} if isinstance(table, str) else table
    find(config, "model", table, path)
    loss = {key: table[key] for key in OF_LOSS if key in table}
    table = {key: value for key, value in table.items() if key not in OF_LOSS}
    for name in ("classes", "outputs"):
        given = table.get(name, most)
        if usual == "softmax" and isinstance(given, int) and given < most:
            raise config.error([*path, name], f"labels out of range: {name}={given}, the data has a label {most - 1}")
    model = make(config, "model", table, path, classes=most, outputs=most)
    return model, call(config, models.supervised, {"loss": usual} | loss, path, given={"model": model})
