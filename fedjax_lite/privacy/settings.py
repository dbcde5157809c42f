"""The table [privacy] of a configuration: the delta to account for, and the noise for an epsilon."""

from typing import NamedTuple

from fedjax_lite.base import Mechanism, Number
from fedjax_lite.config import Config, changed
from fedjax_lite.names import call, refusing
from fedjax_lite.privacy.accountant import check, covered, noise_for
from fedjax_lite.privacy.spent import delta_of
from fedjax_lite.sampling import Sampler

NOISE = ("aggregator", "noise_multiplier")
TARGET = "privacy.target_epsilon"


class Settings(NamedTuple):
    """What [privacy] can say."""

    delta: float | None = None  # by default population^-1.1
    target_epsilon: Number | None = None  # for noise_multiplier = "auto"
    accountant: str = "pld"


def settings_of(config: Config, population: int) -> Settings:
    """The values of [privacy], once they are known to be some."""
    table = config.values.get("privacy", {})
    if not isinstance(table, dict):
        raise config.error(["privacy"], f"must be a table such as {{ delta = 1e-5 }}, got {table!r}")
    settings = call(config, Settings, table, ["privacy"])
    settings = settings._replace(delta=delta_of(settings.delta, population))
    with refusing(config, ["privacy"]):
        check(1.0, 0, settings.delta, settings.accountant)
    return settings


def solved(config: Config, sampler: Sampler, population: int) -> Config:
    """A configuration with `noise_multiplier = "auto"` replaced by the least noise for its target epsilon."""
    if not automatic(config):
        return config
    settings = settings_of(config, population)
    if settings.target_epsilon is None:
        raise config.error(NOISE, '"auto" solves for an epsilon: give target_epsilon under [privacy], or a number here')
    return changed(
        config, {".".join(NOISE): noise(config, settings.target_epsilon, sampler, population)}, {".".join(NOISE): config.place(NOISE)}
    )


def solved_choices(
    config: Config, choices: list[list[dict]], places: dict[str, str], sampler: Sampler, population: int
) -> tuple[list[list[dict]], dict[str, str]]:
    """A study's choices, in which each target epsilon brings its noise along; and where it stands."""
    if not automatic(config):
        return choices, places

    def with_noise(choice):
        return choice | {".".join(NOISE): noise(config, choice[TARGET], sampler, population)} if TARGET in choice else choice

    for name in places:
        if name.split(".")[0] == "sampling" or name == "privacy":
            raise config.error(NOISE, f'"auto" solves for one way to sample, and {name} varies: give noise multipliers in its place')
    return [[with_noise(choice) for choice in axis] for axis in choices], places | {".".join(NOISE): config.place(NOISE)}


def automatic(config: Config) -> bool:
    """Whether the noise is to be solved for."""
    table = config.values.get(NOISE[0])
    if not isinstance(table, dict) or table.get(NOISE[1]) != "auto":
        return False
    if table.get("name") != "dp_mean":
        raise config.error(NOISE, '"auto" solves for dp_mean, whose noise is independent: give a number, and see `fedjax-lite privacy`')
    return True


def noise(config: Config, target: Number, sampler: Sampler, population: int) -> float:
    """The least noise multiplier for an epsilon after all rounds."""
    settings, rounds = settings_of(config, population), config.values["run"].get("rounds", 0)
    with refusing(config, ["privacy"]):
        how = covered(Mechanism(1.0), sampler)[1]
        return noise_for(float(target), how, population, rounds, delta_of(settings.delta, population), settings.accountant)
