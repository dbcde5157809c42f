"""The table [privacy] of a configuration: the delta to account for, and the noise for an epsilon."""

from collections.abc import Callable
from typing import NamedTuple

from fedjax_lite.base import Mechanism, Number
from fedjax_lite.configuration.call import call, refusing
from fedjax_lite.configuration.config import changed
from fedjax_lite.configuration.table import Config, Origin
from fedjax_lite.privacy.accountant import check, covered, noise_for
from fedjax_lite.privacy.budget import delta_of
from fedjax_lite.sampling.participation import Sampler

NOISE = ("aggregator", "noise_multiplier")  # the path of the noise multiplier
TARGET = "privacy.target_epsilon"


class Settings(NamedTuple):
    """The keys of [privacy]."""

    delta: float | None = None  # by default population^-1.1
    target_epsilon: Number | None = None  # for noise_multiplier = "auto"
    accountant: str = "pld"


def settings_of(config: Config, population: int) -> Settings:
    """Return the values of [privacy], once they are checked."""
    if "privacy" not in config.values:
        return Settings()
    table = config.at("privacy").checked("{ delta = 1e-5 }")
    settings = call(table, Settings)
    with refusing(table):
        check(1.0, 0, delta_of(settings.delta, population), settings.accountant)
    return settings


def solved(config: Config, mechanism_of: Callable[[float], Mechanism | None], sampler: Sampler, population: int) -> Config:
    """Replace `noise_multiplier = "auto"` by the least noise multiplier for the target epsilon."""
    target = settings_of(config, population).target_epsilon
    if target is None:
        raise config.error(NOISE, '"auto" solves for an epsilon: give target_epsilon under [privacy], or a number here')
    return with_noise(config, least_noise(config, target, mechanism_of, sampler, population))


def solved_choices(
    config: Config,
    choices: list[list[dict]],
    origins: dict[str, Origin],
    mechanism_of: Callable[[float], Mechanism | None],
    sampler: Sampler,
    population: int,
) -> tuple[list[list[dict]], dict[str, Origin]]:
    """Add its noise multiplier to each target epsilon among a study's choices, and the place of "auto" to `origins`."""
    same = covered(mechanism_of(1.0), sampler, population)[0]
    fixed = ["sampling", "data", "privacy"]
    fixed += [] if same.sensitivity is None and same.divergence is None else ["aggregator", "model"]
    for name in origins:
        if name != TARGET and name.split(".")[0] in fixed:
            raise config.error(NOISE, f'"auto" solves for one mechanism and way to sample, and {name} varies: give noise multipliers')

    def with_its_noise(choice):
        multiplier = {".".join(NOISE): least_noise(config, choice[TARGET], mechanism_of, sampler, population)} if TARGET in choice else {}
        return choice | multiplier

    return [[with_its_noise(choice) for choice in axis] for axis in choices], origins | {".".join(NOISE): config.origin(NOISE)}


def budgets(config: Config) -> list[Config]:
    """Return a configuration for each target epsilon in the grid, if only the target varies there; else `config` alone."""
    grid = config.values.get("grid", {})
    table = grid.get("privacy") if set(grid) <= {"privacy", "seeds"} else None
    targets = table.get("target_epsilon") if isinstance(table, dict) and set(table) == {"target_epsilon"} else None
    if not isinstance(targets, list):
        return [config]
    alone = config._replace(values={name: value for name, value in config.values.items() if name != "grid"})
    return [changed(alone, {TARGET: target}, {TARGET: config.origin(("grid", "privacy", "target_epsilon"))}) for target in targets]


def automatic(config: Config) -> bool:
    """Return whether the noise multiplier is "auto"."""
    return config.at(*NOISE).value == "auto"


def with_noise(config: Config, z: float) -> Config:
    """Return `config` with the noise multiplier `z`."""
    return changed(config, {".".join(NOISE): z}, {".".join(NOISE): config.origin(NOISE)})


def least_noise(
    config: Config, target: Number, mechanism_of: Callable[[float], Mechanism | None], sampler: Sampler, population: int
) -> float:
    """Return the least noise multiplier with which epsilon after all rounds is at most `target`."""
    settings, rounds = settings_of(config, population), config.values["run"]["rounds"]
    delta = delta_of(settings.delta, population)
    with refusing(config.at("privacy")):
        how = covered(mechanism_of(1.0), sampler, population)[1]
        return noise_for(float(target), mechanism_of, how, population, rounds, delta, settings.accountant)
