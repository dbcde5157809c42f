"""The table [distillation] of a configuration, which turns families, aggregator and server into a round of distillation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import optax

from fedjax_lite.base import Aggregator, Server
from fedjax_lite.clients import Family
from fedjax_lite.configuration.call import refusing
from fedjax_lite.configuration.model import model_of
from fedjax_lite.configuration.optimizer import with_optimizer
from fedjax_lite.configuration.registry import make
from fedjax_lite.configuration.sections import Sections
from fedjax_lite.configuration.table import Config, Table
from fedjax_lite.data import class_counts
from fedjax_lite.data.train_test import Source
from fedjax_lite.distill.digest import consensus_server, digest_work
from fedjax_lite.distill.distillation_server import distillation_server
from fedjax_lite.distill.ensemble import Ensemble, by_accuracy, by_certainty, by_class_counts
from fedjax_lite.distill.ensemble_aggregator import ensemble_aggregator
from fedjax_lite.distill.lessons import Lessons, lessons
from fedjax_lite.distill.public_set import Public, public_set
from fedjax_lite.distill.soft_labels import soft_labels
from fedjax_lite.distill.student import Apply
from fedjax_lite.ledger import count
from fedjax_lite.models import Model
from fedjax_lite.models.loss_fn import LossFn

__all__ = ["Distillation", "distillation_of", "lessons_of", "public_examples", "soft_size"]

OURS = ("ensemble", "weigh", "student", "fresh", "models", "digest", "each_round")  # keys that are not of the student's lessons


class Distillation(NamedTuple):
    """The parts of a round of distillation, and the model and loss for the evaluation of its global model."""

    families: list[Family]
    aggregator: Aggregator
    server: Server
    model: Model
    loss_fn: LossFn


def distillation_of(sections: Sections, families: list[Family], server: Server | None) -> Distillation:
    """Build the parts of a round of distillation, with clients that train as the other sections say.

    Args:
        sections: the parts that the other sections describe; [aggregator] is for the soft labels.
        families: the client work and uplink of each family, as [client] describes them.
        server: the server that [server] describes, for clients' models that travel; None: there is no [server].
    """
    config, source, outputs, known = sections.config, sections.source, sections.outputs, sections.known
    table = config.at("distillation").checked('{ optimizer = { name = "adam", learning_rate = 1e-2 }, steps = 100 }')
    how = lessons_of(table.without(OURS), OURS)
    public = public_examples(table, source)
    ensemble = _ensemble(table, source, outputs[0], public)
    model, loss_fn, student = known[0].model, known[0].loss_fn, None
    if "student" in table:
        model, loss_fn = model_of(table.at("student"), outputs)
        student = model.init(sections.key, source.example)
    digest = lessons_of(table.at("digest")) if "digest" in table else None
    rule = sections.aggregator_of(table.at("models")) if "models" in table else None
    _check(table, len(known) > 1, server is not None)

    def with_soft_labels(family: Family, model: Apply) -> Family:
        """Let a family's clients send soft labels."""
        work = family.work if digest is None else digest_work(family.work, model, public, digest)
        if rule is None:
            return Family(work, family.clients, soft_labels(model, public, ensemble, then=family.uplink))
        width = max(map(count, sections.params)) if len(known) > 1 else None
        uplink = soft_labels(model, public, ensemble, model=True, width=width)
        return Family(work, family.clients, uplink if family.uplink is None else optax.chain(family.uplink, uplink))

    with refusing(table):
        sizes = [one.clients for one in known] if len(known) > 1 else None
        aggregator = ensemble_aggregator(ensemble, sections.aggregator_of(config.at("aggregator")), rule, public, rule and sizes)
        if digest is not None:
            at_server = consensus_server(public, outputs[0], how=how, apply=model.apply, student=student, fresh=table.get("fresh", False))
        else:
            at_server = distillation_server(how, model.apply, public, student=student, fresh=table.get("fresh", False), server=server)
        families = [with_soft_labels(family, one.model.apply) for family, one in zip(families, known, strict=True)]
        return Distillation(families, aggregator, at_server, model, loss_fn)


def soft_size(config: Config, source: Source, classes: int) -> int | None:
    """Return the size of a client's soft labels of a round's public examples; None without [distillation]."""
    if "distillation" not in config.values or source.public is None:
        return None
    each_round = config.at("distillation").get("each_round")
    return (each_round or int(source.public.examples["x"].shape[0])) * classes


def lessons_of(table: Table, also: Sequence[str] = ()) -> Lessons:
    """Build a student's lessons from a table with optimizer and steps; `also` are keys that are read elsewhere."""
    return with_optimizer(
        table.checked('{ optimizer = { name = "adam", learning_rate = 1e-3 }, steps = 100 }'), lessons, ["step"], also=also
    )


def public_examples(table: Table, source: Source) -> Public:
    """Return the public examples of [data], of which a round takes the table's `each_round`, or all."""
    if source.public is None:
        raise table.config.error(
            ("data",), "distillation needs public examples: give public, a share of the clients' such as 0.2, or a table"
        )
    examples = source.public.examples
    inputs = {name: x for name, x in examples.items() if name != "y"}
    with refusing(table if "each_round" in table else table.config.at("data")):
        return public_set(inputs, examples.get("y"), table.get("each_round"))


def _check(table: Table, families: bool, server: bool) -> None:
    """Refuse a table by which clients would learn nothing, or whose keys exclude each other."""
    if "models" in table and "digest" in table:
        raise table.error("is for models that stay with their clients: leave it or models out", "digest")
    if "student" not in table and ("digest" in table or families):
        raise table.error('give student, the global model, such as { name = "mlp", hidden = [16] }')
    if "student" in table and "digest" not in table and "models" not in table:
        raise table.error(
            'clients would learn nothing from each other: give models, such as "weighted_mean", or digest, such as '
            '{ optimizer = { name = "adam", learning_rate = 1e-3 }, steps = 100 }'
        )
    if server and "models" not in table:
        raise table.config.error(
            ("server",), "changes the clients' models, which do not travel here: leave it out, or give distillation.models"
        )
    if not isinstance(table.get("fresh", False), bool):
        raise table.error(f"must be true or false, got {table.get('fresh')!r}", "fresh")


def _ensemble(table: Table, source: Source, classes: int, public: Public) -> Ensemble:
    """Build the ensemble, with the weights of models that `weigh` names."""
    weigh = table.at("weigh")
    known = {
        "certainty": by_certainty,
        "class_counts": lambda: by_class_counts(class_counts(source.train, classes)),
        "accuracy": lambda: by_accuracy(public.labels),
    }
    if "weigh" in table and weigh.value not in list(known):
        raise weigh.error(f"must be one of {', '.join(known)}, got {weigh.value!r}")
    if weigh.value == "accuracy" and (public.labels is None or public.each_round is not None):
        raise weigh.error('"accuracy" needs labels of the public examples, and all of them in each round')
    with refusing(weigh):
        given: dict[str, Any] = {"weigh": known[weigh.value]()} if "weigh" in table else {}
    ensemble = replace(table.at("ensemble"), value=table.get("ensemble", "mean_logits")).named()
    if given and ensemble.get("name") == "sharpened":
        raise weigh.error("is for mean_logits and mean_probabilities: leave it out")
    return make(ensemble, "ensemble", **given)
