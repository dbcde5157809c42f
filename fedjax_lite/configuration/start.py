"""What [model] says of its first parameters: the file that they are from, and which of them are frozen."""

from collections.abc import Callable

from fedjax_lite.algorithms.freeze import freeze
from fedjax_lite.base import Algorithm, Tree
from fedjax_lite.configuration.call import call, refusing
from fedjax_lite.configuration.leaves import rule_of
from fedjax_lite.configuration.model import loss_of
from fedjax_lite.configuration.sections import Sections
from fedjax_lite.configuration.table import Config, Table
from fedjax_lite.evaluation import FineTune
from fedjax_lite.leaves import Rule, besides, chosen, predicate, split
from fedjax_lite.models import Model, pretrained

__all__ = ["freezing", "frozen_of", "others_of", "started", "where_learning"]


def started(table: Table, params: Tree) -> Tree:
    """Return the parameters of the file that a model's table names under `start`, or `params` where it names none."""
    start = table.at("start")
    if start.value is None:
        return params
    if isinstance(start.value, str):
        return call(Table(start.config, start.path, {}), pretrained, {"params": params, "path": start.file()})
    if not isinstance(start.value, dict):
        raise start.error(f'must be the path of a safetensors file, or {{ path = "...", names = {{ ... }} }}, got {start.value!r}')
    return call(start, pretrained, {"params": params})


def frozen_of(config: Config, model: Model, example: Tree, params: Tree) -> Rule | None:
    """Return the rule of the leaves that [model] freezes; None: all learn.

    Raises:
        ConfigError: for a rule that fits no leaf or all, and beside [distillation].
    """
    table = config.at("model", "frozen")
    if table.value is None:
        return None
    if "distillation" in config.values:
        raise table.error("is for one model, which clients and server both have, and here the server distils: leave it out")
    return rule_of(table, model, example, params)


def others_of(rule: Rule | None, params: Tree) -> Tree:
    """Return the leaves that learn, None in place of those that a rule freezes."""
    return params if rule is None else split(chosen("frozen", rule, params), params)[1]


def freezing(sections: Sections, rule: Rule, build: Callable[[Sections], Algorithm]) -> Algorithm:
    """Build an algorithm on the leaves that learn."""
    one, params = sections.known[0], sections.params[0]

    def make(model: Model) -> Algorithm:
        learning = one._replace(model=model, loss_fn=loss_of(one.table, model, sections.outputs, sections.source))
        return build(sections._replace(known=[learning], params=[others_of(rule, params)]))

    with refusing(sections.config.at("model", "frozen")):
        return freeze(rule, one.model, params, make)


def where_learning(finetune: FineTune | None, rule: Rule | None) -> FineTune | None:
    """Let clients fine-tune the leaves that are not frozen, and of these the chosen ones."""
    if finetune is None or rule is None:
        return finetune
    mine, others = predicate("finetune: leaves", finetune.leaves), predicate("frozen", besides(rule))
    return finetune._replace(leaves=lambda path, leaf: mine(path, leaf) and others(path, leaf))
