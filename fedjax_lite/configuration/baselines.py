"""The table [baselines] of a configuration: the same local training on all examples together, and of each client alone."""

from collections.abc import Callable
from functools import partial

from fedjax_lite.base import Algorithm
from fedjax_lite.baselines.centralised import check_pooled, pooled
from fedjax_lite.baselines.local_only import alone
from fedjax_lite.configuration.call import refusing
from fedjax_lite.configuration.client import BESIDE, batches_of
from fedjax_lite.configuration.config import nearest
from fedjax_lite.configuration.optimizer import CLOCKS, with_optimizer
from fedjax_lite.configuration.registry import make
from fedjax_lite.configuration.sections import Sections
from fedjax_lite.work import sgd_work

__all__ = ["baselines_of"]

NAMES = ("centralised", "local_only")


def baselines_of(sections: Sections, algorithm: Algorithm) -> dict[str, Callable[[Sections], Algorithm]]:
    """Return the functions that build the baselines which [baselines] switches on, of the optimizer and the batches of [client].

    Raises:
        ConfigError: for other keys and values, and an algorithm whose clients train another model, or by another loss.
    """
    config = sections.config
    table = config.at("baselines")
    if table.value is None:
        return {}
    for name, value in table.checked("{ centralised = true, local_only = true }").value.items():
        if name not in NAMES:
            raise table.error(f"unknown key{nearest(name, NAMES)}; there are {', '.join(NAMES)}", name)
        if not isinstance(value, bool):
            raise table.error(f"must be true or false, got {value!r}", name)
    wanted = [name for name in NAMES if table.get(name)]
    if wanted and (len(sections.known) > 1 or "distillation" in config.values or algorithm.loss_fn is not None):
        raise table.error("are of the model of [model] and its loss, and here others are trained or evaluated: leave them out")
    if wanted and "batch_size" not in config.at("client"):
        raise table.error("take their batches from [client] batch_size, which the algorithm has no use for: leave them out")
    return {name: partial(_made, name) for name in wanted}


def _made(name: str, sections: Sections) -> Algorithm:
    """Build one baseline."""
    config, client = sections.config, sections.config.at("client")
    kept = {"loss_fn": sections.known[0].loss_fn, "keep_optimizer": True}
    work = with_optimizer(client.without([*BESIDE, "keep_optimizer"]), sgd_work, CLOCKS, kept, BESIDE)
    if name == "centralised":
        with refusing(config.at("baselines")):
            check_pooled(sections.known[0].loss_fn)
        return pooled(work, batches_of(client))
    engine = make(config.at("engine"), "engine") if "engine" in config.values else None
    return alone(work, batches_of(client), sections.source.population, engine)
