"""The table [algorithm] of a configuration: a function of `fl.algorithms`, or a user's, with arguments from the other sections.

The function's arguments are known by their names. Some come from the other sections (`_given`), some are tables that describe a part
(`_part`), and the rest are keys of [algorithm].
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite.algorithms import latent_generator
from fedjax_lite.base import Algorithm, Tree
from fedjax_lite.configuration.call import call, refusing
from fedjax_lite.configuration.client import OF_BATCHES, batches_of, uplink_of
from fedjax_lite.configuration.config import nearest
from fedjax_lite.configuration.distillation import lessons_of, public_examples
from fedjax_lite.configuration.leaves import leaves_of
from fedjax_lite.configuration.model import OF_LOSS, OF_START, model_of
from fedjax_lite.configuration.optimizer import CLOCKS, optimizer_of, schedule_of
from fedjax_lite.configuration.registry import find, make
from fedjax_lite.configuration.sections import Sections
from fedjax_lite.configuration.server import server_of
from fedjax_lite.configuration.table import Config, Table
from fedjax_lite.models import Model

__all__ = ["algorithm_of", "others_keys", "own_keys"]

GIVEN = (  # arguments that come from other sections
    "loss_fn", "model", "models", "clients", "params", "optimizer", "learning_rate", "batches", "uplink", "population", "classes",
    "example", "largest", "public", "aggregator", "server", "engine",
)  # fmt: skip


def algorithm_of(sections: Sections) -> tuple[Algorithm, Tree]:
    """Build the algorithm that [algorithm] names; also return the first parameters for its `init`.

    Raises:
        ConfigError: for a section or key that the algorithm has no argument for, a missing key, and arguments that the algorithm refuses.
    """
    table = sections.config.at("algorithm").named()
    factory, own = find(table, "algorithm")
    parameters = inspect.signature(factory).parameters
    given = _given(sections, table, parameters)
    also = ["each_round"] if "public" in parameters else []
    _refuse_keys(own, factory, also)
    for name in [name for name in parameters if name not in given and (name in own or name == "generator")]:
        if parameters[name].annotation is not bool:  # keep_optimizer describes none
            own = own.also(**{name: _part(sections, own.at(name), name)})
    algorithm = call(own.without(also), factory, given, also)
    if not isinstance(algorithm, Algorithm):
        raise table.error(f"must make an Algorithm, and makes {type(algorithm).__name__}", "name")
    if "loss_fn" not in parameters and algorithm.loss_fn is not None:
        for model in sections.config.at("model").at("families").items() if len(sections.known) > 1 else [sections.config.at("model")]:
            _refuse_loss(model, table.get("name"))
    return algorithm, tuple(sections.params) if "models" in parameters else sections.params[0]


def own_keys(factory: Callable) -> list[inspect.Parameter]:
    """Return the arguments of an algorithm that [algorithm] itself can set."""
    return [p for p in inspect.signature(factory).parameters.values() if p.name not in GIVEN and p.kind is not p.VAR_KEYWORD]


def others_keys(factory: Callable) -> list[str]:
    """Return the arguments of an algorithm that a user sets in other sections."""
    chosen = {"optimizer", "learning_rate", "batches", "uplink", "public", "aggregator", "server"}
    return [name for name in inspect.signature(factory).parameters if name in chosen]


def _refuse_keys(own: Table, factory: Callable, also: list[str]) -> None:
    """Refuse keys of [algorithm] that the algorithm has not, or that other sections give."""
    known = [*also, *(p.name for p in own_keys(factory))]
    for key in own.value:
        if key in GIVEN:
            raise own.error(f"comes from another section, not from [algorithm], which takes {', '.join(known) or 'no key'}", key)
        if key not in known:
            raise own.error(f"unknown key{nearest(key, known)}; there are {', '.join(known) or 'none'}", key)


def _refuse_loss(model: Table, name: Any) -> None:
    """Refuse keys of a model's loss, beside an algorithm with a loss of its own."""
    for key in OF_LOSS:
        if key in model and (key, model.get(key)) != ("loss", "softmax"):
            raise model.error(f"is not looked at: {name} has a loss of its own; leave it out", key)


def _given(sections: Sections, table: Table, parameters: Any) -> dict[str, Any]:
    """Return the arguments that come from other sections, by name."""
    config, source, known = sections.config, sections.source, sections.known
    client, aggregator = config.at("client"), config.at("aggregator")
    _refuse_others(config, table.get("name"), parameters)
    if len(known) > 1 and "models" not in parameters:
        raise config.at("model", "families").error(f"are several models, and {table.get('name')} trains one: leave them out")
    makers: dict[str, Callable[[], Any]] = {
        "model": lambda: known[0].model,
        "models": lambda: [one.model for one in known],
        "clients": lambda: [one.clients for one in known],
        "params": lambda: sections.params,
        "batches": lambda: batches_of(client),
        "uplink": lambda: uplink_of(client),
        "population": lambda: source.population,
        "classes": lambda: sections.outputs[0],
        "example": lambda: source.example,
        "largest": lambda: source.train.largest,
        "public": lambda: public_examples(table, source),
        "server": lambda: server_of(config),
        "engine": lambda: make(config.at("engine"), "engine") if "engine" in config.values else None,
    }
    given = {name: maker() for name, maker in makers.items() if name in parameters}
    given |= _rate(client, parameters)
    if "aggregator" in config.values:
        given["aggregator"] = sections.aggregator_of(aggregator)
    if "loss_fn" in parameters:
        given["loss_fn"] = known[0].loss_fn
    if sections.attacked is not None:
        given |= _attacked(sections, given)
    given = {name: value for name, value in given.items() if value is not None}
    for section in ("aggregator", "server"):
        if section in parameters and section not in given and parameters[section].default is inspect.Parameter.empty:
            raise config.error((section,), f"this section is missing, and {table.get('name')} needs it")
    return given


def _refuse_others(config: Config, name: Any, parameters: Any) -> None:
    """Refuse sections and keys that the algorithm has no argument for."""
    if "distillation" in config.values:
        raise config.error(("distillation",), "is a way of its own beside [algorithm]: leave one of them out")
    for section in ("aggregator", "server"):
        if section in config.values and section not in parameters:
            raise config.error((section,), f"{name} brings its own: leave the section out")
    known = [
        key for key, of in (("optimizer", ("optimizer", "learning_rate")), ("uplink", ("uplink",))) if not parameters.keys().isdisjoint(of)
    ]
    known += OF_BATCHES if "batches" in parameters else []
    for key in config.values.get("client", {}):
        if key not in known:
            raise config.error(("client", key), f"{name} takes no such thing; of [client] it takes {', '.join(known) or 'nothing'}")


def _rate(client: Table, parameters: Any) -> dict[str, Any]:
    """Return the clients' optimizer and its learning rate as arguments; the rate alone for a method with steps of plain SGD."""
    if "optimizer" not in parameters and ("learning_rate" not in parameters or "optimizer" not in client):
        return {}
    if "optimizer" not in client:
        raise client.error('give optimizer, such as { name = "sgd", learning_rate = 0.1 }')
    table = client.at("optimizer")
    if "optimizer" in parameters:
        optimizer, rate = optimizer_of(table, CLOCKS)
        if rate is not None and "learning_rate" not in parameters:
            raise table.error("can't be scheduled for this algorithm: give a number", "learning_rate")
        return {"optimizer": optimizer} | ({"learning_rate": rate} if "learning_rate" in parameters else {})
    if not isinstance(table.value, dict) or table.value.keys() != {"name", "learning_rate"} or table.get("name") != "sgd":
        raise table.error(
            'must be { name = "sgd", learning_rate = ... } alone: the algorithm takes steps of its own, and no other optimizer'
        )
    optimizer_of(table, CLOCKS)
    return {"learning_rate": schedule_of(table.at("learning_rate"), CLOCKS)}


def _attacked(sections: Sections, given: dict[str, Any]) -> dict[str, Any]:
    """Return the loss function and the aggregator under attack, as arguments."""
    assert sections.attacked is not None
    table = sections.config.at("attack")
    if "aggregator" not in given:
        raise table.error("stands before an aggregator: give [aggregator], with an algorithm that takes one")
    loss_fn, aggregator = sections.attacked(given.get("loss_fn"), given["aggregator"])
    if "loss_fn" not in given and loss_fn is not None:
        raise table.error("is on the clients' examples, and the algorithm takes no loss function to put it in: take another attack")
    return {"aggregator": aggregator} | ({"loss_fn": loss_fn} if "loss_fn" in given else {})


def _part(sections: Sections, table: Table, name: str) -> Any:
    """Build the part that a table inside [algorithm] describes, by the argument's name; return another value as it is."""
    if name == "student":
        return _model(sections, table, sections.source.example)
    if name == "server_model":
        return _model(sections, table, {"x": _features(sections, table)})
    if name == "generator":
        size = _features(sections, table).size
        given = {"key": sections.key, "classes": sections.outputs[0]}
        own = replace(table, value={} if table.value is None else table.value).checked("{ noise = 32, hidden = 256 }")
        return call(own.also(latent=own.get("latent", size)), latent_generator, given)
    if name in ("digest", "how"):
        return lessons_of(table)
    if name == "soft":
        return sections.aggregator_of(table)
    if name == "ensemble":
        return make(table, "ensemble")
    if name in ("personal", "fixed", "top"):
        return leaves_of(sections, table, some=name != "top")
    if name == "mixing" and not isinstance(table.value, list):
        return make(table, "mixing", n=sections.source.population)
    if name.endswith("optimizer"):
        optimizer, rate = optimizer_of(table, CLOCKS)
        if rate is not None:
            raise table.error("its learning rate can't be scheduled here: give a number")
        return optimizer
    return _learning_rate(table) if name.endswith("learning_rate") else table.value


def _learning_rate(table: Table) -> Any:
    """Return a learning rate: a number that is finite and not negative, a study's array, or a schedule on the round's clock."""
    value = table.value
    if isinstance(value, bool | str | list):
        raise table.error(f"must be a number, or a schedule, got {value!r}")
    if isinstance(value, int | float) and not 0 <= value < float("inf"):
        raise table.error(f"must be finite and not negative, got {value}")
    return schedule_of(table, ["round"])


def _model(sections: Sections, table: Table, example: Tree) -> tuple[Model, Tree]:
    """Build a model and its first parameters."""
    _refuse_loss(table.named(), "a model that learns soft labels or features")
    for key in OF_START:
        if key in table.named():
            raise table.error("is for the clients' model: leave it out", key)
    model, _ = model_of(table, sections.outputs)
    with refusing(table):
        return model, model.init(sections.key, example)


def _features(sections: Sections, table: Table) -> jax.Array:
    """Return zeros in the shape of the features that the clients' model has of one example."""
    features, example = sections.known[0].model.features, jax.tree.map(jnp.asarray, sections.source.example)
    if features is None:
        raise table.config.at("model").error("has no features apart from its head: take another model, such as mlp")
    with refusing(table.config.at("model")):
        shape = jax.eval_shape(features, sections.params[0], jax.tree.map(lambda x: x[None], example), None)
        return jnp.zeros(shape.shape[1:], shape.dtype)
