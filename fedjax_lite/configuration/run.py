"""The table [run] of a configuration: the options of `fl.run`."""

from typing import Any

from fedjax_lite.configuration.call import call
from fedjax_lite.configuration.registry import make
from fedjax_lite.configuration.table import Config
from fedjax_lite.runner.arguments import check_options
from fedjax_lite.runner.convergence import Convergence

__all__ = ["options_of"]


def options_of(config: Config) -> dict[str, Any]:
    """Return the values of [run], once they are checked as options of a run."""
    table = config.at("run")
    if "converge" in table:
        rule = table.at("converge").checked('{ metric = "test_loss", patience = 5 }')
        table = table.also(converge=call(rule, Convergence))
    table = table.without(["finetune"])  # which `finetune_of` builds
    if "writers" in table:
        table = table.also(writers=[make(writer, "writer") for writer in table.at("writers").items()])
    call(table, check_options)
    return table.value
