"""How much a private run gives away: epsilon from noise, sampling and rounds, and the noise for an epsilon. On the host.

The numbers come from the package dp-accounting (`pip install "fedjax_lite[privacy]"`).
"""

import logging
import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from fedjax_lite.base import Mechanism, Participation
from fedjax_lite.privacy.discrete import epsilon_of
from fedjax_lite.sampling import Sampler, participation_of, slots_of

LEAST = 1e-2  # no run has use for less noise
TOLERANCE = 1e-4  # relative, of a noise multiplier that is solved for with a limit of slots
ACCOUNTANTS = ("rdp", "pld")
RELATIONS = {  # sampling -> which two populations can't be told apart
    "poisson": "one client added or removed",
    "everyone": "one client added or removed",
    "cyclic": "one client added or removed",
    "fixed": "one client replaced by another",
}


class Guarantee(NamedTuple):
    """What a number of rounds gives away: (epsilon, delta)-differential privacy, by each accountant."""

    rounds: int
    delta: float
    rdp: float | None  # epsilon by Renyi divergences; None where that accountant doesn't cover the sampling
    pld: float | None  # epsilon by privacy loss distributions; None likewise
    sampling: str
    relation: str  # which two populations can't be told apart

    def __str__(self) -> str:
        numbers = [f"{value:.4g} ({name})" for name, value in (("RDP", self.rdp), ("PLD", self.pld)) if value is not None]
        return f"epsilon {', '.join(numbers)} at delta {self.delta:.3g} after {self.rounds} rounds, {self.sampling}; for {self.relation}"


def epsilon(
    noise_multiplier: float,
    sampling_rate: float,
    rounds: int,
    delta: float,
    accountant: str = "pld",
) -> float:
    r"""The epsilon of rounds of the Gaussian mechanism, each client taking part in each with a probability (Poisson sampling).

    Pr[run with a client in S] <= e^epsilon Pr[run without it in S] + delta, and the other way round, for any S.

    Args:
        noise_multiplier: z > 0, the noise's standard deviation over the clip norm.
        sampling_rate: q in (0, 1]; 1 is everyone in every round.
        rounds: T >= 0.
        delta: in (0, 1), usually below one over the population.
        accountant: "pld" (privacy loss distributions, the tighter) or "rdp" (Renyi divergences, the faster).

    Returns:
        epsilon, for one client added or removed.

    Raises:
        ValueError: for a number out of range, an unknown accountant, or without the package dp-accounting.

    >>> round(epsilon(1.0, 0.01, rounds=1000, delta=1e-5), 3)
    1.828

    Source: Mironov 2017, "Renyi differential privacy"; Koskela et al. 2020, "Computing tight differential privacy guarantees using FFT".
    """
    check(sampling_rate, rounds, delta, accountant)
    if not noise_multiplier > 0:
        raise ValueError(f"epsilon: noise_multiplier must be positive, got {noise_multiplier}: without noise no epsilon is finite")
    return _epsilon(accountant, Participation("poisson", rate=sampling_rate), 0, float(noise_multiplier), rounds, delta)


def calibrate(target_epsilon: float, sampling_rate: float, rounds: int, delta: float, accountant: str = "pld") -> float:
    """The least noise multiplier under which `epsilon` of the same arguments is at most the target.

    Args:
        target_epsilon: positive.
        sampling_rate, rounds, delta, accountant: as for `epsilon`.

    Returns:
        z, to a relative 1e-6.

    Raises:
        ValueError: as `epsilon`, and for a target that is not positive and finite.

    >>> round(calibrate(1.0, 0.01, rounds=1000, delta=1e-5, accountant="rdp"), 3)
    1.513
    """
    check(sampling_rate, rounds, delta, accountant)
    return noise_for(target_epsilon, Participation("poisson", rate=sampling_rate), 0, rounds, delta, accountant)


def account(mechanism: Mechanism | None, sampler: Sampler, population: int, rounds: int, delta: float) -> Guarantee:
    """What a private run gives away, by both accountants, with the sampling that its sampler really does.

    Poisson sampling with its capacity, beyond which clients are left out (of which PLD alone has a bound, and RDP stands for it where there
    is room for the mean and 6 standard deviations); a fixed number drawn from all, which is accounted for one client
    replaced by another, of which RDP alone has a bound; everyone; and in turn, where a client takes part ceil(rounds * clients /
    population) times and no sampling hides it.

    Args:
        mechanism: `algorithm.privacy`, or an aggregator's.
        sampler: who takes part.
        population: how many clients there are.
        rounds: how many.
        delta: in (0, 1).

    Raises:
        ValueError: for a sampler whose kind no accountant covers, numbers out of range, or without the package dp-accounting.

    >>> import fedjax_lite as fl
    >>> found = account(fl.aggregators.dp_mean(1.0, 2.0, 100).privacy, fl.sampling.poisson(0.1), 1000, rounds=100, delta=1e-4)
    >>> round(found.pld, 2), found.relation
    (1.97, 'one client added or removed')
    """
    return accounted(mechanism, sampler, population, [rounds], delta)[0]


def accounted(mechanism: Mechanism | None, sampler: Sampler, population: int, rounds: Sequence[int], delta: float) -> list[Guarantee]:
    """`account` after each of several numbers of rounds."""
    mechanism, how = covered(mechanism, sampler)
    z = float(mechanism.noise_multiplier)
    if mechanism.sensitivity is not None or mechanism.divergence is not None:
        return [_at_once(mechanism, how, population, count, delta) for count in rounds]
    for count in rounds:
        check(how.rate, count, delta, "pld")

    def one(name: str, count: int) -> float | None:
        if name == "pld" and how.kind == "fixed":
            return None
        if name == "rdp" and cut:
            return None
        if z == 0:
            return math.inf
        return _epsilon(name, how, population, z, count, delta)

    cut = how.kind == "poisson" and slots_of(how, population) < slots_of(how._replace(capacity=None), population)
    said = described(how, population)
    return [Guarantee(count, delta, one("rdp", count), one("pld", count), said, RELATIONS[how.kind]) for count in rounds]


def covered(mechanism: Mechanism | None, sampler: Sampler) -> tuple[Mechanism, Participation]:
    """The mechanism, if there is one, and how the sampler chooses.

    Raises:
        ValueError: if there is nothing private, or no accountant covers this choice.
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
    return mechanism, how


def _at_once(mechanism: Mechanism, how: Participation, population: int, rounds: int, delta: float) -> Guarantee:
    """The guarantee of noise that is correlated over rounds, or that is not Gaussian."""
    check(1.0, rounds, delta, "pld")
    clients = population if how.kind == "everyone" else how.clients
    if mechanism.shares and (how.some_lost or clients < mechanism.shares):
        raise ValueError(
            f"clients draw the noise, and it is whole only where {mechanism.shares} of them are there: take clients_per_round of them, "
            "without dropout or availability"
        )
    times, z = -(-rounds * clients // population), float(mechanism.noise_multiplier)
    said = described(how, population), "one client's messages or zeros" if mechanism.shares else RELATIONS[how.kind]
    if times == 0 or z == 0:
        spent = 0.0 if times == 0 else math.inf
        return Guarantee(rounds, delta, spent, spent, *said)
    if mechanism.divergence is not None:
        return Guarantee(rounds, delta, epsilon_of(mechanism.divergence, times, delta), None, *said)
    assert mechanism.sensitivity is not None
    together = z / mechanism.sensitivity(times, population // clients)
    rdp, pld = (_epsilon(name, Participation("everyone"), 0, together, 1, delta) for name in ACCOUNTANTS)
    return Guarantee(rounds, delta, rdp, pld, *said)


def noise_for(target: float, how: Participation, population: int, rounds: int, delta: float, accountant: str) -> float:
    """The least noise multiplier for an epsilon."""
    if not 0 < target < math.inf:
        raise ValueError(f"target_epsilon must be positive and finite, got {target}")
    if how.kind == "fixed" and accountant == "pld":
        raise ValueError('accountant: "pld" does not cover a fixed number of clients drawn from all: take "rdp", or sample with poisson')
    dpa = package()
    relation, event = _events(dpa, how, population, rounds, truncated=False)
    ledger = partial(_accountant, dpa, accountant, relation)
    above = {"bracket_interval": dpa.LowerEndpointAndGuess(LEAST, 1.0)} if how.kind == "fixed" else {}  # whose bound divides by it
    z = float(dpa.calibrate_dp_mechanism(ledger, event, target, delta, **above))
    if accountant == "pld" and how.kind == "poisson" and 0 < slots_of(how, population) < population:
        # A limit of slots asks for more noise, mostly hardly any; its accountant takes a second a try, so start from what is known.
        if _epsilon(accountant, how, population, (1 + TOLERANCE) * z, rounds, delta) <= target:
            return (1 + TOLERANCE) * z
        near = dpa.LowerEndpointAndGuess(z, (1 + 10 * TOLERANCE) * z)
        event = _events(dpa, how, population, rounds, truncated=True)[1]
        z = float(dpa.calibrate_dp_mechanism(ledger, event, target, delta, bracket_interval=near, tol=TOLERANCE * z))
    return z


def described(how: Participation, population: int) -> str:
    """A kind of sampling for a person."""
    if how.kind == "poisson":
        return f"Poisson sampling at rate {how.rate:g} with room for {slots_of(how, population)}"
    return {"fixed": f"{how.clients} of {population} clients at random", "cyclic": f"{how.clients} clients in turn"}.get(
        how.kind, "everyone"
    )


def check(sampling_rate: Any, rounds: int, delta: float, accountant: str) -> None:
    """Refuse what no accountant takes."""
    if not 0 < sampling_rate <= 1:
        raise ValueError(f"sampling_rate must be in (0, 1], got {sampling_rate}")
    if not isinstance(rounds, int) or rounds < 0:
        raise ValueError(f"rounds must be a whole number of at least 0, got {rounds!r}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, got {delta}: usually below one over the population")
    if accountant not in ACCOUNTANTS:
        raise ValueError(f'accountant must be "pld" or "rdp", got {accountant!r}')


@cache
def _epsilon(accountant: str, how: Participation, population: int, z: float, rounds: int, delta: float) -> float:
    dpa = package()
    relation, event = _events(dpa, how, population, rounds, truncated=accountant == "pld")
    ledger = _accountant(dpa, accountant, relation)
    ledger.compose(event(z))
    return float(ledger.get_epsilon(delta))


def _events(dpa: Any, how: Participation, population: int, rounds: int, truncated: bool) -> tuple[Any, Any]:
    """The neighbouring relation, and a function of the noise multiplier to what happened; population 0: without a limit of slots."""
    slots = slots_of(how, population) if how.kind == "poisson" and population else population

    def often(event, times):
        return dpa.SelfComposedDpEvent(event, times) if times else dpa.NoOpDpEvent()

    def event(z):
        if how.kind == "fixed":  # replacing one client moves the sum by twice the clip norm
            return often(dpa.SampledWithoutReplacementDpEvent(population, how.clients, dpa.GaussianDpEvent(z / 2)), rounds)
        if how.kind == "cyclic":
            return often(dpa.GaussianDpEvent(z), -(-rounds * how.clients // population))
        if how.kind == "everyone" or how.rate == 1:
            return often(dpa.GaussianDpEvent(z), rounds)
        if truncated and slots < population:
            return often(dpa.TruncatedSubsampledGaussianDpEvent(population, float(how.rate), slots, z), rounds)
        return often(dpa.PoissonSampledDpEvent(float(how.rate), dpa.GaussianDpEvent(z)), rounds)

    relations = dpa.NeighboringRelation
    return relations.REPLACE_ONE if how.kind == "fixed" else relations.ADD_OR_REMOVE_ONE, event


def _accountant(dpa: Any, name: str, relation: Any) -> Any:
    from dp_accounting import pld, rdp

    return {"pld": pld.PLDAccountant, "rdp": rdp.RdpAccountant}[name](neighboring_relation=relation)


def package() -> Any:
    """dp-accounting, or an error that says how to install it."""
    try:
        import dp_accounting
    except ImportError:
        raise ValueError('accounting needs the package dp-accounting: pip install "fedjax_lite[privacy]"') from None
    logging.getLogger("absl").addFilter(_worth_telling)
    return dp_accounting


def _worth_telling(record: logging.LogRecord) -> bool:
    """Not that one of a hundred and fifty orders has no bound: another is the least."""
    return "Excluding this order" not in record.getMessage()
