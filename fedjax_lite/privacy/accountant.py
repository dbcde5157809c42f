"""Account for a private run: epsilon from noise, sampling and rounds, and the noise for an epsilon. On the host.

The numbers come from the package dp-accounting (`pip install "fedjax_lite[privacy]"`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fedjax_lite.base import Mechanism
from fedjax_lite.privacy.discrete import epsilon_of
from fedjax_lite.privacy.gaussian import ACCOUNTANTS, epsilon_of_rounds, least_noise
from fedjax_lite.refuse import is_number, plain
from fedjax_lite.sampling.participation import Participation, Sampler, participation_of, slots_of

SELDOM = 1e-7  # probability that slots run out in a round, up to which RDP ignores the limit of slots
LARGE = 100.0  # epsilon by RDP, above which PLD is left out: it takes minutes, and no client is protected
TOLERANCE = 1e-4  # relative rise of the noise multiplier that is tried first for a limit of slots
ZEROED = "one client's messages or zeros"
RELATIONS = {  # kind of sampling -> how two populations that can't be told apart differ
    "poisson": "one client added or removed",
    "everyone": "one client added or removed",
    "cyclic": ZEROED,  # one client more would shift everybody's turn
    "fixed": "one client replaced by another",
}


class Guarantee(NamedTuple):
    """(epsilon, delta)-differential privacy after a number of rounds, by each accountant."""

    rounds: int
    delta: float
    rdp: float | None  # epsilon by Renyi divergences; None where that accountant doesn't cover the sampling
    pld: float | None  # epsilon by privacy loss distributions; None where that accountant doesn't cover the sampling
    sampling: str  # in words
    relation: str  # how two populations that can't be told apart differ

    def __str__(self) -> str:
        numbers = [f"{value:.4g} ({name})" for name, value in (("RDP", self.rdp), ("PLD", self.pld)) if value is not None]
        return f"epsilon {', '.join(numbers)} at delta {self.delta:.3g} after {self.rounds} rounds, {self.sampling}; for {self.relation}"


def epsilon(
    noise_multiplier: Any,
    sampling_rate: Any,
    rounds: Any,
    delta: Any,
    accountant: str = "pld",
) -> float:
    r"""The epsilon of rounds of the Gaussian mechanism, each client taking part in each with a probability (Poisson sampling).

    Pr[run with a client in S] <= e^epsilon Pr[run without it in S] + delta, and the other way round, for any S.

    Args:
        noise_multiplier: z > 0, the noise's standard deviation over the clip norm.
        sampling_rate: q in (0, 1]; 1 is everyone in every round.
        rounds: T >= 0.
        delta: in (0, 1), usually below one over the population.
        accountant: "pld" (privacy loss distributions, the tighter: a second or two; the less noise, the coarser their grid) or "rdp"
            (Renyi divergences, the faster).

    Returns:
        epsilon, for one client added or removed.

    Raises:
        ValueError: for a number out of range, an unknown accountant, or without the package dp-accounting.

    >>> round(epsilon(1.0, 0.01, rounds=1000, delta=1e-5), 3)
    1.828

    Source: Mironov 2017, "Renyi differential privacy"; Koskela et al. 2020, "Computing tight differential privacy guarantees using FFT".
    """
    noise_multiplier, sampling_rate, rounds, delta = map(plain, (noise_multiplier, sampling_rate, rounds, delta))
    check(sampling_rate, rounds, delta, accountant)
    if not is_number(noise_multiplier) or not 0 < noise_multiplier < math.inf:
        raise ValueError(
            f"epsilon: noise_multiplier must be positive and finite, got {noise_multiplier!r}: without noise no epsilon is finite"
        )
    return epsilon_of_rounds(accountant, Participation("poisson", rate=sampling_rate), 0, float(noise_multiplier), rounds, delta)


def calibrate(target_epsilon: Any, sampling_rate: Any, rounds: Any, delta: Any, accountant: str = "pld") -> float:
    """The least noise multiplier under which `epsilon` of the same arguments is at most the target.

    Args:
        target_epsilon: positive.
        sampling_rate, rounds, delta, accountant: as for `epsilon`.

    Returns:
        z, to a relative 1e-6. By "pld" it is found from coarse privacy losses first: up to ten seconds on one core.

    Raises:
        ValueError: as `epsilon`, and for a target that is not positive and finite.

    >>> round(calibrate(1.0, 0.01, rounds=1000, delta=1e-5, accountant="rdp"), 3)
    1.513
    """
    target_epsilon, sampling_rate, rounds, delta = map(plain, (target_epsilon, sampling_rate, rounds, delta))
    check(sampling_rate, rounds, delta, accountant)
    return noise_for(target_epsilon, Mechanism, Participation("poisson", rate=sampling_rate), 0, rounds, delta, accountant)


def account(mechanism: Mechanism | None, sampler: Sampler, population: int, rounds: Any, delta: Any) -> Guarantee:
    """The guarantee of a private run, by both accountants, with the sampling that its sampler really does.

    Poisson sampling leaves out clients beyond its capacity, which PLD accounts for. RDP ignores the capacity, and is given only where the
    probability p that slots run out in a round is at most 1e-7: its epsilon is proven at a delta larger by T p (1 + e^epsilon), so at a
    tiny delta go by PLD. A fixed number drawn from all is accounted for one client replaced by another, by RDP alone. Everyone in every
    round, and clients in turn, are not hidden by sampling: in turn a client takes part ceil(rounds * clients / population) times.

    Args:
        mechanism: `algorithm.privacy`, or an aggregator's.
        sampler: of the run.
        population: how many clients there are.
        rounds: how many the run has.
        delta: in (0, 1).

    Raises:
        ValueError: for a sampler whose kind no accountant covers, numbers out of range, or without the package dp-accounting.

    >>> import fedjax_lite as fl
    >>> found = account(fl.aggregators.dp_mean(1.0, 2.0, 100).privacy, fl.sampling.poisson(0.1), 1000, rounds=100, delta=1e-4)
    >>> round(found.pld, 2), found.relation
    (1.97, 'one client added or removed')
    """
    return accounted(mechanism, sampler, population, [rounds], delta)[0]


def accounted(mechanism: Mechanism | None, sampler: Sampler, population: int, rounds: Sequence[Any], delta: Any) -> list[Guarantee]:
    """Return the guarantee, as `account` does, after each number of `rounds`."""
    mechanism, how = covered(mechanism, sampler, population)
    how = how._replace(rate=plain(how.rate))
    rounds, delta = [plain(count) for count in rounds], plain(delta)
    for count in rounds:
        check(how.rate, count, delta)
        refuse_more_rounds(mechanism, count)
    relation = ZEROED if mechanism.shares else RELATIONS[how.kind]
    relation += f", provided that {mechanism.provided}" if mechanism.provided else ""

    def by(name: str, count: int) -> float | None:
        """Return epsilon by the accountant `name`, or None without a bound."""
        return epsilon_by(name, mechanism, how, population, count, delta) if bounds(name, mechanism, how, population) else None

    def both(count: int) -> tuple[float | None, float | None]:
        """Return epsilon by RDP and by PLD, without PLD above `LARGE`."""
        unlimited = 0 if how.kind == "poisson" else population
        large = mechanism.noise_multiplier and epsilon_by("rdp", mechanism, how, unlimited, count, delta) > LARGE
        return by("rdp", count), None if large else by("pld", count)

    return [Guarantee(count, delta, *both(count), describe(how, population), relation) for count in rounds]


def covered(mechanism: Mechanism | None, sampler: Sampler, population: int) -> tuple[Mechanism, Participation]:
    """Return `mechanism` and the participation of `sampler`, or refuse a pair that no accountant covers.

    Raises:
        ValueError: without a mechanism, or if no accountant covers the sampler with the mechanism.
    """
    if mechanism is None:
        raise ValueError("nothing here is private: take a private aggregator such as fl.aggregators.dp_mean(...)")
    how = participation_of(sampler)
    if how is None:
        raise ValueError(
            "no accountant covers this sampler, whose choice depends on more than chance (sizes, a list, code of your own): with a private "
            "aggregator take fl.sampling.poisson, uniform, cyclic or everyone, also inside dropout, stragglers or availability"
        )
    if (mechanism.sensitivity or mechanism.divergence) is not None and how.kind not in ("cyclic", "everyone"):
        raise ValueError(
            "no accountant covers this sampler with this mechanism, whose noise chance doesn't amplify: correlated over rounds it needs a "
            "bound on how often a client takes part, and drawn by the clients a fixed number of them; take fl.sampling.cyclic or everyone"
        )
    if mechanism.personal and (how.kind == "fixed" or (how.kind == "poisson" and _too_many(how, population) > SELDOM)):
        raise ValueError(
            "clients keep models of their own, in which the cohorts of earlier rounds show: a private aggregator allows for these where no "
            "client's draw tells of another's; take fl.sampling.poisson(rate), with its own number of slots, cyclic or everyone"
        )
    clients = population if how.kind == "everyone" else how.clients
    if how.kind in ("fixed", "cyclic") and clients > population:
        raise ValueError(f"sampling: clients={clients} is more than the population of {population}: lower it")
    if mechanism.shares and (how.some_lost or clients != mechanism.shares):
        raise ValueError(
            f"the noise that clients draw is as promised only where clients_per_round = {mechanism.shares} of them are there, neither "
            f"fewer nor more, and the sampler takes {clients}: make them equal, without dropout or availability"
        )
    return mechanism, how


def refuse_more_rounds(mechanism: Mechanism, rounds: int) -> None:
    """Refuse a run of more rounds than `mechanism` is made for."""
    if mechanism.rounds is not None and rounds > mechanism.rounds:
        raise ValueError(f"rounds={mechanism.rounds} of the aggregator are fewer than the {rounds} of the run: raise them")


def bounds(name: str, mechanism: Mechanism, how: Participation, population: int) -> bool:
    """Return whether the accountant `name` has a bound for `mechanism` with the participation `how`."""
    if name == "pld":
        return mechanism.divergence is None and how.kind != "fixed"
    return how.kind != "poisson" or population == 0 or _too_many(how, population) <= SELDOM


def _too_many(how: Participation, population: int) -> float:
    """Return the probability that a Poisson cohort has more clients than slots."""
    from scipy.stats import binom

    return float(binom.sf(slots_of(how, population), population, float(how.rate)))


def epsilon_by(
    name: str, mechanism: Mechanism, how: Participation, population: int, rounds: int, delta: float, coarse: bool = False
) -> float:
    """Return the epsilon of `rounds` by the accountant `name`; population 0: Poisson sampling without a limit of slots."""
    z, times, separation = float(mechanism.noise_multiplier), rounds, 1
    if how.kind == "cyclic":  # how often a client takes part, and the fewest rounds from one time to the next
        times, separation = -(-rounds * how.clients // population), population // how.clients
    if mechanism.divergence is not None:
        return epsilon_of(mechanism.divergence, times, delta)
    if mechanism.sensitivity is not None:
        moved = mechanism.sensitivity(times, separation)
        times, z = (1, z / moved) if moved else (0, z)
    if z == 0:
        return math.inf if times else 0.0
    alone = how if how.kind in ("poisson", "fixed") else Participation("everyone")
    return epsilon_of_rounds(name, alone, population, z, times, delta, coarse)


def noise_for(
    target: Any,
    mechanism_of: Callable[[float], Any],
    how: Participation,
    population: int,
    rounds: int,
    delta: float,
    accountant: str,
) -> float:
    """Find the least noise multiplier z under which `mechanism_of(z)` has an epsilon of at most `target`."""
    if not is_number(target) or not 0 < target < math.inf:
        raise ValueError(f"target_epsilon must be positive and finite, got {target!r}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1 to solve for noise, got {rounds}")

    def least(name: str, population: int, start: float, coarse: bool = False) -> float:
        """Find the least noise multiplier by the accountant `name`, from the guess `start`."""
        return least_noise(lambda z: epsilon_by(name, mechanism_of(z), how, population, rounds, delta, coarse), target, start)

    if not bounds(accountant, mechanism_of(1.0), how, population):
        other = "rdp" if accountant == "pld" else "pld"
        raise ValueError(f'accountant: "{accountant}" has no bound for {describe(how, population)} with this noise: take "{other}"')
    unlimited = 0 if how.kind == "poisson" else population
    z = least("rdp", unlimited, 1.0)
    if accountant == "rdp":
        return z
    z = least("pld", unlimited, least("pld", unlimited, z, coarse=True))
    if how.kind != "poisson" or slots_of(how, population) >= population:
        return z
    # A limit of slots mostly asks for hardly more noise, and PLD with a limit takes seconds a try: first try `TOLERANCE` more.
    more = (1 + TOLERANCE) * z
    enough = epsilon_of_rounds("pld", how, population, more, rounds, delta) <= target
    return more if enough else least("pld", population, least("pld", population, more, coarse=True))


def describe(how: Participation, population: int) -> str:
    """Describe the participation `how` in words."""
    if how.kind == "poisson":
        return f"Poisson sampling at rate {how.rate:g} with room for {slots_of(how, population)}"
    return {"fixed": f"{how.clients} of {population} clients at random", "cyclic": f"{how.clients} clients in turn"}.get(
        how.kind, "everyone"
    )


def check(sampling_rate: Any, rounds: Any, delta: Any, accountant: str = "pld") -> None:
    """Refuse numbers out of range, and an unknown accountant."""
    if not is_number(sampling_rate) or not 0 < sampling_rate <= 1:
        raise ValueError(f"sampling_rate must be in (0, 1], got {sampling_rate!r}")
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 0:
        raise ValueError(f"rounds must be a whole number of at least 0, got {rounds!r}")
    if not is_number(delta) or not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, got {delta!r}: usually below one over the population")
    if accountant not in ACCOUNTANTS:
        raise ValueError(f'accountant must be "pld" or "rdp", got {accountant!r}')
