"""The key finetune of [run]: how clients train the global model before it is evaluated again."""

from typing import Any

from fedjax_lite.configuration.client import OF_BATCHES, batches_of
from fedjax_lite.configuration.config import nearest
from fedjax_lite.configuration.leaves import leaves_of
from fedjax_lite.configuration.optimizer import CLOCKS, optimizer_of
from fedjax_lite.configuration.sections import Sections
from fedjax_lite.evaluation import FineTune

__all__ = ["finetune_of"]

KEYS = (*OF_BATCHES, "optimizer", "leaves")


def finetune_of(sections: Sections) -> FineTune | None:
    """Build what [run] finetune describes; optimizer and batch size are by default those of [client].

    Raises:
        ConfigError: for an unknown key, and values that no client could train by.
    """
    table, client = sections.config.at("run", "finetune"), sections.config.at("client")
    if table.value is None:
        return None
    table = table.checked('{ epochs = 1, optimizer = { name = "sgd", learning_rate = 0.1 } }')
    for key in table.value:
        if key not in KEYS:
            raise table.error(f"unknown key{nearest(key, KEYS)}; there are {', '.join(KEYS)}", key)
    beside: dict[str, Any] = {} if "batch_size" in table or "batch_size" not in client else {"batch_size": client.get("batch_size")}
    batches = batches_of(table.only(OF_BATCHES).also(**beside))
    of = table if "optimizer" in table else client
    if "optimizer" not in of:
        raise table.error('give optimizer, such as { name = "sgd", learning_rate = 0.1 }')
    optimizer, rate = optimizer_of(of.at("optimizer"), CLOCKS)
    if rate is not None:
        raise table.error("there is one round of fine-tuning, so no rate is scheduled: give an optimizer with a number")
    return FineTune(optimizer, batches, leaves_of(sections, table.at("leaves")) if "leaves" in table else "all")
