"""The table [distillation] of a configuration: what becomes of its other parts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from fedjax_lite.base import Aggregator, Key, Server, Tree
from fedjax_lite.clients import Family
from fedjax_lite.configuration.config import Config
from fedjax_lite.configuration.model import Architecture, model_of
from fedjax_lite.configuration.optimizer import with_optimizer
from fedjax_lite.configuration.registry import make, refusing
from fedjax_lite.data import class_counts
from fedjax_lite.data.federated import Source
from fedjax_lite.distill.ensemble import Ensemble, by_accuracy, by_certainty, by_class_counts
from fedjax_lite.distill.kept import consensus_server, kept
from fedjax_lite.distill.pooled import pooled
from fedjax_lite.distill.public import Public, public_set
from fedjax_lite.distill.server import distillation_server
from fedjax_lite.distill.soft_labels import soft_labels
from fedjax_lite.distill.student import Apply, Lessons, lessons
from fedjax_lite.ledger import count
from fedjax_lite.models import Model
from fedjax_lite.models.loss_fn import LossFn

__all__ = ["Distilled", "distilled", "soft_size"]

OURS = ("ensemble", "weigh", "student", "fresh", "models", "digest", "each_round")  # beside how the student is taught
PATH = ["distillation"]


class Distilled(NamedTuple):
    """The parts of a round of distillation, and what its global model is evaluated with."""

    families: list[Family]
    aggregator: Aggregator
    server: Server
    model: Model
    loss_fn: LossFn


def distilled(
    config: Config,
    source: Source,
    outputs: tuple[int, str],
    key: Key,
    known: list[Architecture],
    params: list[Tree],
    families: list[Family],
    aggregator_of: Callable[[Any, Any], Aggregator],
    server: Server | None,
) -> Distilled:
    """What [distillation] makes of models that are trained as the rest of a configuration says.

    Args:
        outputs: how many classes, and the usual loss.
        key: of the student's first parameters.
        known, params, families: the architecture of each family, its first parameters, and what its clients do.
        aggregator_of: from a table and its path; [aggregator] is for the soft labels.
        server: what [server] says, for clients' models that travel; None: nothing.
    """
    table = config.values["distillation"]
    if not isinstance(table, dict):
        raise config.error(PATH, f"must be a table, got {table!r}")
    ours = {name: table[name] for name in OURS if name in table}
    how = _lessons(config, {name: value for name, value in table.items() if name not in OURS}, PATH)
    public = _public(config, source, ours.get("each_round"))
    ensemble = _ensemble(config, ours, source, outputs[0], public)
    model, loss_fn, student = known[0].model, known[0].loss_fn, None
    if "student" in ours:
        model, loss_fn = model_of(config, ours["student"], [*PATH, "student"], outputs)
        student = model.init(key, source.example)
    digest = _lessons(config, ours["digest"], [*PATH, "digest"]) if "digest" in ours else None
    rule = aggregator_of(ours["models"], [*PATH, "models"]) if "models" in ours else None
    _check(config, ours, len(known) > 1, server is not None)

    def telling(family: Family, model: Apply) -> Family:
        """A family whose clients say what their models think."""
        work = family.work if digest is None else kept(family.work, model, public, digest)
        if rule is None:
            return Family(work, family.clients, soft_labels(model, public, ensemble, then=family.uplink))
        width = max(map(count, params)) if len(params) > 1 else None
        said = soft_labels(model, public, ensemble, model=True, width=width)
        return Family(work, family.clients, said if family.uplink is None else optax.chain(family.uplink, said))

    with refusing(config, PATH):
        sizes = [one.clients for one in known] if len(known) > 1 else None
        aggregator = pooled(ensemble, aggregator_of(config.values["aggregator"], ["aggregator"]), rule, public, rule and sizes)
        if digest is not None:
            at_server = consensus_server(public, outputs[0], how=how, apply=model.apply, student=student, fresh=ours.get("fresh", False))
        else:
            at_server = distillation_server(how, model.apply, public, student=student, fresh=ours.get("fresh", False), server=server)
        told = [telling(family, one.model.apply) for family, one in zip(families, known, strict=True)]
        return Distilled(told, aggregator, at_server, model, loss_fn)


def soft_size(config: Config, source: Source, classes: int) -> int | None:
    """How many numbers a client says of the public examples; None without [distillation]."""
    if "distillation" not in config.values or source.public is None:
        return None
    table = config.values["distillation"]
    return (table.get("each_round") or int(source.public.examples["x"].shape[0])) * classes


def _check(config: Config, ours: dict[str, Any], several: bool, server: bool) -> None:
    """Refuse what clients would learn nothing by."""
    if "models" in ours and "digest" in ours:
        raise config.error([*PATH, "digest"], "is for models that stay with their clients: leave it or models out")
    if "student" not in ours and ("digest" in ours or several):
        raise config.error(PATH, 'give student, the global model, such as { name = "mlp", hidden = [16] }')
    if "student" in ours and "digest" not in ours and "models" not in ours:
        raise config.error(
            PATH, 'clients would learn nothing from each other: give models, such as "weighted_mean", or digest, such as '
            '{ optimizer = { name = "adam", learning_rate = 1e-3 }, steps = 100 }'
        )  # fmt: skip
    if server and "models" not in ours:
        raise config.error(["server"], "changes the clients' models, which do not travel here: leave it out, or give distillation.models")
    if not isinstance(ours.get("fresh", False), bool):
        raise config.error([*PATH, "fresh"], f"must be true or false, got {ours['fresh']!r}")


def _lessons(config: Config, table: Any, path: list[str]) -> Lessons:
    if not isinstance(table, dict):
        raise config.error(path, f"must be a table with optimizer and steps, got {table!r}")
    return with_optimizer(config, lessons, dict(table), path, {}, OURS if path == PATH else (), ["step"])


def _public(config: Config, source: Source, each_round: Any) -> Public:
    if source.public is None:
        raise config.error(["data"], "distillation needs public examples: give public, a share of the clients' such as 0.2, or a table")
    examples = source.public.examples
    inputs = {name: x for name, x in examples.items() if name != "y"}
    with refusing(config, PATH):
        return public_set(inputs, examples.get("y"), each_round)


def _ensemble(config: Config, ours: dict[str, Any], source: Source, classes: int, public: Public) -> Ensemble:
    """The ensemble, and whose say counts how much."""
    path, weigh = [*PATH, "weigh"], ours.get("weigh")
    known = {
        "certainty": by_certainty,
        "class_counts": lambda: by_class_counts(class_counts(source.train, classes)),
        "accuracy": lambda: by_accuracy(public.labels),
    }
    if weigh is not None and weigh not in list(known):
        raise config.error(path, f"must be one of {', '.join(known)}, got {weigh!r}")
    if weigh == "accuracy" and (public.labels is None or public.each_round is not None):
        raise config.error(path, '"accuracy" needs labels of the public examples, and all of them in each round')
    with refusing(config, path):
        given = {} if weigh is None else {"weigh": known[weigh]()}
    table = ours.get("ensemble", "mean_logits")
    name = table.get("name") if isinstance(table, dict) else table
    if given and name == "sharpened":
        raise config.error(path, "is for mean_logits and mean_probabilities: leave it out")
    return make(config, "ensemble", table, [*PATH, "ensemble"], **given)
