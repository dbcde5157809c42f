"""The table [attack] of a configuration: the attack, and the Byzantine clients."""

from typing import Any

from fedjax_lite import attacks
from fedjax_lite.configuration.call import call, refusing
from fedjax_lite.configuration.registry import find, make
from fedjax_lite.configuration.table import Config


def attack_of(config: Config, classes: int, population: int) -> tuple[attacks.Attack | None, Any, dict[str, Any]]:
    """Build the attack (or None) and the mask of attackers `[population]`; also return defaults for an aggregator's arguments."""
    if "attack" not in config.values:
        return None, None, {}
    table = config.at("attack").named()
    if not isinstance(table.value, dict):
        find(table, "attack")
    choice, table = table.only(("num_byzantine", "byzantine", "seed")), table.without(("num_byzantine", "byzantine", "seed"))
    none = table.value == {"name": "none"}
    attack = None if none else make(table, "attack", classes=classes)
    if "byzantine" in choice:
        listed = choice.at("byzantine")
        if "num_byzantine" in choice:
            raise listed.error("give byzantine or num_byzantine, not both")
        if not isinstance(listed.value, list):
            raise listed.error(f"must be a list of client ids, got {listed.value!r}")
        with refusing(listed):
            number = len(listed.value)
            return attack, attacks.byzantine(number, population, ids=listed.value), {"num_byzantine": number}
    if "num_byzantine" not in choice:
        if none:
            return None, None, {}
        raise table.error("give num_byzantine, or byzantine: a list of client ids")
    chosen = call(choice, attacks.byzantine, {"population": population})
    return attack, chosen, {"num_byzantine": choice.get("num_byzantine")}
