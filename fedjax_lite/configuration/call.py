"""Call a function with a table's values: the signature decides which keys are known, required and of which type."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fedjax_lite.configuration.code import line_in_code
from fedjax_lite.configuration.config import nearest
from fedjax_lite.configuration.schema import describable, described, fits, is_path, parameters_of, typed
from fedjax_lite.configuration.table import Config, ConfigError, Table

__all__ = ["call", "refusing"]


def call(table: Table, function: Callable, given: Mapping[str, Any] | None = None, also: Sequence[str] = ()) -> Any:
    """Call a function with a table's values, once they are known to fit its signature.

    Args:
        table: its values come from TOML, or are already the parts that tables describe.
        function: a factory.
        given: arguments that no table can set.
        also: keys of the table that are read elsewhere, for the message about an unknown key.

    Raises:
        ConfigError: for an unknown key, a missing key, a value of another type, and arguments that the function refuses.
    """
    given = given or {}
    parameters = {p.name: p for p in parameters_of(function) if p.name not in given}
    for key in table.value:
        if key not in parameters:
            known = [*also, *parameters]
            raise table.error(f"unknown key{nearest(key, known)}; there are {', '.join(known) or 'none'}", key)
    arguments = {}
    for name, parameter in parameters.items():
        if name not in table:
            if parameter.default is parameter.empty:
                raise table.error(_missing(function, name, parameter.annotation))
            continue
        value = table.value[name]
        if not fits(value, parameter.annotation):
            raise table.error(f"must be {described(parameter.annotation)}, got {value!r}", name)
        if isinstance(value, str | list) and is_path(parameter.annotation):
            files = [each.file() for each in table.at(name).items()]
            value = files if isinstance(value, list) else files[0]
        arguments[name] = typed(value, parameter.annotation)
    with refusing(table):
        return function(**arguments, **given)


LESSONS = '{ optimizer = { name = "adam", learning_rate = 1e-3 }, steps = 100 }'
# Arguments that are tables of their own, or lists of tables: an example of each.
TABLES = {
    "partition": '{ name = "iid", clients = 10 }',
    "sampler": '{ name = "everyone" }',
    "inner": "",  # its kind depends on the table around it
    "optimizer": '{ name = "sgd", learning_rate = 0.1 }',
    "server_optimizer": '{ name = "sgd", learning_rate = 0.1 }',
    "student": '{ name = "mlp", hidden = [16] }',
    "server_model": '{ name = "mlp", hidden = [100] }',
    "mixing": '{ name = "ring" }',
    "digest": LESSONS,
    "how": LESSONS,
}


def _missing(function: Callable, name: str, annotation: Any) -> str:
    """Return the message about a required argument that is missing."""
    if name in TABLES:
        return f"give {name}, such as {TABLES[name]}" if TABLES[name] else f"give {name}"
    if not describable(annotation):
        return f"{function.__name__} requires {name}, which no configuration can give: give it a default"
    return f"give {name}"


@contextmanager
def refusing(table: Table | Config) -> Any:
    """Turn an exception into a ConfigError about `table`, or about the key below `table` that the exception's message names.

    Inside this context only a configuration's values vary, so every exception, from jax, optax or flax too, is about these values.
    """
    table = table.at() if isinstance(table, Config) else table
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        message = (
            str(error).split("\n")[0] if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}".split("\n")[0]
        )
        whole = table.config.at(*table.path)  # the original values: the table's may already be parts
        keys = [key.path for key in whole.below() if len(key.path) > 1 and key.path[-1] != "name"]
        shapes = [r"{}\b", r".*\b{}\b"] if table.path else [r"{}\b"]
        named = [key for shape in shapes for key in keys if re.match(shape.format(re.escape(str(key[-1]))), message)]
        where = line_in_code(error)
        raise table.config.error(next(iter(named), table.path), f"{where and where + ': '}{message}") from error
