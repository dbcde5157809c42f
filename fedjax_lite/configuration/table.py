"""A configuration's values, each with the place where it was written, so that an error can name the line."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_lite.configuration.lines import line_of
from fedjax_lite.refuse import short

__all__ = ["Config", "ConfigError", "Origin", "Override", "Table", "Where"]

Where = tuple[str | int, ...]  # the path of a value: ("client", "uplink", 0, "max_norm")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the file, the line and the remedy."""


class Origin(NamedTuple):
    """The place where a value was written."""

    place: str  # for a person: the file and the line, or "--set run.rounds=5"
    folder: Path  # the folder where a relative path in the value starts


class Override(NamedTuple):
    """A value that was changed after the file was read."""

    path: Where
    origin: Origin


class Config(NamedTuple):
    """A configuration's values, with the text and the overrides from which each value's origin is found."""

    values: dict[str, Any]  # nested, as TOML gives them, overrides applied
    text: str = ""  # the file's text
    source: str = "the configuration"  # the file's name
    overrides: tuple[Override, ...] = ()

    def at(self, *path: str | int) -> "Table":
        """Return the value at a path as a `Table`, whose value is None where the configuration has none."""
        return Table(self, (), self.values).at(*path)

    def origin(self, path: Where) -> Origin:
        """Return the place where the value at a path was written; for a missing value, the place of the deepest table above."""
        changed = [override for override in self.overrides if override.path == path[: len(override.path)]]
        line = line_of(self.text, path)
        if not changed and line is None:  # neither: perhaps the file lacks this table, and an override made it
            changed = [override for override in self.overrides if path == override.path[: len(path)]]
        return changed[-1].origin if changed else Origin(f"{self.source}:{line}" if line else self.source, Path(self.source).parent)

    def error(self, path: Where, message: str) -> ConfigError:
        """Make the error about the value, or the missing value, at a path."""
        return ConfigError(": ".join(filter(None, (self.origin(path).place, short(dotted(path)), short(message, 1000)))))


@dataclass(frozen=True)
class Table:
    """A value of a configuration, in most cases a table, with its path.

    >>> table = Config({"run": {"rounds": 0}}, "[run]\\nrounds = 0", "a.toml").at("run")
    >>> "rounds" in table, table.get("rounds"), table.get("converge")
    (True, 0, None)
    >>> table.error("must be at least 1, got 0", "rounds")
    ConfigError('a.toml:2: run.rounds: must be at least 1, got 0')
    """

    config: Config
    path: Where
    value: Any

    def at(self, *path: str | int) -> "Table":
        """Return the value at a path below this value; None where there is none."""
        value = self.value
        for key in path:
            inside = key in value if isinstance(value, dict) else isinstance(value, list) and isinstance(key, int) and key < len(value)
            value = value[key] if inside else None
        return Table(self.config, (*self.path, *path), value)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a table's key, or a default."""
        return self.value[key] if key in self else default

    def __contains__(self, key: object) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def items(self) -> list["Table"]:
        """Return the members of a list, each with its path; for another value, this value alone."""
        return [self.at(i) for i in range(len(self.value))] if isinstance(self.value, list) else [self]

    def below(self) -> list["Table"]:
        """Return the value of every key, a table's own keys before the keys of tables inside; lists are not entered."""
        own = [self.at(key) for key in self.value] if isinstance(self.value, dict) else []
        return own + [key for each in own for key in each.below()]

    def texts(self) -> list["Table"]:
        """Return every text in the table, in its lists too."""

        def paths(value: Any, path: Where) -> Iterator[Where]:
            if isinstance(value, str):
                yield path
            elif isinstance(value, dict | list):
                for key, each in value.items() if isinstance(value, dict) else enumerate(value):
                    yield from paths(each, (*path, key))

        return [self.at(*path) for path in paths(self.value, ())]

    def only(self, keys: Iterable[str]) -> "Table":
        """Return the table with only `keys`, where it has them."""
        return replace(self, value={key: self.value[key] for key in keys if key in self})

    def without(self, keys: Iterable[str]) -> "Table":
        """Return the table without `keys`; another value as it is."""
        drop = set(keys)
        return replace(self, value={key: x for key, x in self.value.items() if key not in drop}) if isinstance(self.value, dict) else self

    def also(self, **values: Any) -> "Table":
        """Return the table with `values`, in place of its own values."""
        return replace(self, value=self.value | values)

    def named(self) -> "Table":
        """Turn a text into a table with only a name; return another value as it is."""
        return replace(self, value={"name": self.value}) if isinstance(self.value, str) else self

    def checked(self, example: str) -> "Table":
        """Return this value if it is a table.

        Raises:
            ConfigError: for a value that is no table; shows the example.
        """
        if not isinstance(self.value, dict):
            raise self.error(f"must be a table such as {example}, got {self.value!r}")
        return self

    def file(self) -> Path:
        """Return this text as a path: `~` is home; a relative path starts in the folder of the file that has the text.

        A text from `--set` starts in the current directory.

        Raises:
            ConfigError: for the home of an unknown user.
        """
        try:
            return self.config.origin(self.path).folder / Path(self.value).expanduser()
        except RuntimeError as error:
            raise self.error(f"{error} of {self.value!r}") from None

    def error(self, message: str, *path: str | int) -> ConfigError:
        """Make the error about this value, or about a value, present or missing, at a path below."""
        return self.config.error((*self.path, *path), message)


def dotted(path: Where) -> str:
    """Write a path as TOML does.

    >>> dotted(("client", "uplink", 0, "share"))
    'client.uplink[0].share'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
