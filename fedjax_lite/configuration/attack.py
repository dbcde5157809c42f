"""The table [attack] of a configuration: what Byzantine clients do, and who they are."""

from typing import Any

from fedjax_lite import attacks
from fedjax_lite.configuration.config import Config
from fedjax_lite.configuration.registry import call, find, make, refusing


def attack_of(config: Config, classes: int, population: int) -> tuple[attacks.Attack | None, Any, dict[str, Any]]:
    """The attack (None: nobody's), who mounts it `[population]`, and what an aggregator may take from its table."""
    if "attack" not in config.values:
        return None, None, {}
    table = config.values["attack"]
    table = dict(table) if isinstance(table, dict) else {"name": table} if isinstance(table, str) else table
    if not isinstance(table, dict):
        find(config, "attack", table, ["attack"])
    choice = {name: table.pop(name) for name in ("num_byzantine", "byzantine", "seed") if name in table}
    none = table == {"name": "none"}
    attack = None if none else make(config, "attack", table, ["attack"], classes=classes)
    if "byzantine" in choice:
        if "num_byzantine" in choice:
            raise config.error(["attack", "byzantine"], "give byzantine or num_byzantine, not both")
        ids = choice["byzantine"]
        if not isinstance(ids, list):
            raise config.error(["attack", "byzantine"], f"must be a list of client ids, got {ids!r}")
        with refusing(config, ["attack", "byzantine"]):
            return attack, attacks.byzantine(len(ids), population, ids=ids), {"num_byzantine": len(ids)}
    if "num_byzantine" not in choice:
        if none:
            return None, None, {}
        raise config.error(["attack"], "give num_byzantine, or byzantine: a list of client ids")
    chosen = call(config, attacks.byzantine, choice, ["attack"], {"population": population})
    return attack, chosen, {"num_byzantine": choice["num_byzantine"]}
