"""The table [server] of a configuration: how an aggregate changes the model, and whether the clients' rate adapts."""

from fedjax_lite.base import Server
from fedjax_lite.configuration.call import call
from fedjax_lite.configuration.optimizer import with_optimizer
from fedjax_lite.configuration.table import Config
from fedjax_lite.server import adaptive_rate, optimizer_server

__all__ = ["server_of"]


def server_of(config: Config) -> Server | None:
    """Build the server that the table describes; None without the table."""
    if "server" not in config.values:
        return None
    table = config.at("server")
    server = with_optimizer(table.without(["adaptive_rate"]), optimizer_server, ["round"], also=["adaptive_rate"])
    if "adaptive_rate" not in table:
        return server
    return call(table.at("adaptive_rate").checked("{ power = 1.0 }"), adaptive_rate, {"server": server})
