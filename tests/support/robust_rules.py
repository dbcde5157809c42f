"""The one list of robust rules: how each is made, the NumPy statement of its paper, what it needs, promises and keeps. A new rule is
tested by adding its row."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import robust_oracles as oracles

from fedjax_lite import aggregators

SLOTS, WIDTH, TRUSTED = 11, 9, 3
SIZES = np.array([3, 9, 1, 4, 6, 2, 7, 5, 8, 4, 10, 1, 6])  # by client id
ALIKE = np.ones_like(SIZES)  # sizes with which all weigh the same
TRUSTED_FIRST = np.array([TRUSTED, *(i for i in range(SLOTS) if i != TRUSTED)], np.int32)  # ids with which slot 0 is the trusted client's


class Who(NamedTuple):
    """What is known of the clients whose messages an oracle is given."""

    weight: np.ndarray  # examples times the sampler's weight
    trusted: int  # the trusted client's row
    by_id: np.ndarray  # the rows in the order of their clients' ids


class Rule(NamedTuple):
    make: Callable  # f, policy -> aggregator
    oracle: Callable  # V, f, Who -> aggregate
    times: int = 0  # n >= times f + plus; with times 0 the rule has no f
    plus: int = 1
    # What it keeps: a shift of all messages ("shift"), a scale ("scale"), a rotation ("turn"), a message that all send ("same"), a message
    # that a majority of n-f sends ("majority"), the mean where f = 0 ("mean"), the range of every honest set ("range"), the messages'
    # convex hull ("hull").
    keeps: str = ""
    kappa: Callable | None = None  # n, f -> the bound of (f, kappa)-robustness
    static: bool = False  # f is no tracer
    sums: bool = False  # it reports no "too_few"
    variant: bool = False  # of another row: what does not depend on its arguments is tested once
    deep: bool = False  # the row is asked in the deeper tier alone
    before: Callable | None = None  # the oracle of a pre-aggregator: V, f -> V
    inner: str | None = None  # the rule behind it

    def fits(self, n, f):
        return n >= self.times * f + self.plus

    def withstands(self, n, f):
        """Also where the rule does not know f."""
        return n >= (self.times or 2) * f + self.plus


def pre(make, before, inner, keeps="", kappa=None, deep=False):
    """A rule behind a pre-aggregator."""
    rule = RULES[inner]
    return Rule(
        lambda f, policy: make(rule.make(f, policy), f),
        lambda V, f, who: rule.oracle(before(V, f), f, who),
        *(2, max(rule.plus, 1)),
        keeps=keeps,
        kappa=kappa,
        deep=deep,
        before=before,
        inner=inner,
    )


def ratio(n, f):
    return f / (n - 2 * f)


def after_nnm(kappa):
    """Allouah et al. 2023, "Fixing by mixing", lemma 1."""
    return lambda n, f: 8 * f / (n - f) * (kappa(n, f) + 1)


def middle(n, f):
    return 4 * (1 + ratio(n, f)) ** 2


ALL = "shift scale turn same"
RULES = {
    "mean": Rule(
        lambda f, p: aggregators.mean(p),
        lambda V, f, who: oracles.mean(V),
        keeps=f"{ALL} mean hull",
        sums=True,
    ),
    "median": Rule(
        lambda f, p: aggregators.median(non_finite=p),
        lambda V, f, who: oracles.median(V),
        keeps="shift scale same majority range",
        kappa=middle,
    ),
    "weighted_median": Rule(
        lambda f, p: aggregators.weighted_median(non_finite=p),
        lambda V, f, who: oracles.weighted_median(V, who.weight),
        keeps="shift scale same range",
    ),
    "trimmed_mean": Rule(
        lambda f, p: aggregators.trimmed_mean(f, non_finite=p),
        lambda V, f, who: oracles.trimmed_mean(V, f),
        *(2, 1),
        keeps="shift scale same majority mean range",
        kappa=lambda n, f: 6 * ratio(n, f) * (1 + ratio(n, f)),
    ),
    "meamed": Rule(
        lambda f, p: aggregators.meamed(f, non_finite=p),
        lambda V, f, who: oracles.meamed(V, f),
        *(2, 1),
        keeps="shift scale same majority mean",
    ),
    "krum": Rule(
        lambda f, p: aggregators.krum(f, non_finite=p),
        lambda V, f, who: oracles.krum(V[who.by_id], f),
        *(2, 3),
        keeps=f"{ALL} majority hull",
        # With n-f-2 neighbours the proof below has one honest neighbour fewer to average over.
        kappa=lambda n, f: 6 * (n - f) / (n - 2 * f - 1),
    ),
    "krum byzfl": Rule(
        lambda f, p: aggregators.krum(f, neighbors="byzfl", non_finite=p),
        lambda V, f, who: oracles.krum(V[who.by_id], f, "byzfl"),
        *(2, 1),
        keeps=f"{ALL} majority hull",
        # The paper's Krum sums over n-f neighbours and itself, which is byzfl's.
        kappa=lambda n, f: 6 * (1 + ratio(n, f)),
        variant=True,
    ),
    "multi_krum": Rule(
        lambda f, p: aggregators.multi_krum(f, non_finite=p),
        lambda V, f, who: oracles.multi_krum(V[who.by_id], f),
        *(2, 3),
        keeps=f"{ALL} majority mean hull",
    ),
    "multi_krum byzfl": Rule(
        lambda f, p: aggregators.multi_krum(f, neighbors="byzfl", non_finite=p),
        lambda V, f, who: oracles.multi_krum(V[who.by_id], f, None, "byzfl"),
        *(2, 1),
        keeps=f"{ALL} majority mean hull",
        variant=True,
    ),
    "bulyan": Rule(
        lambda f, p: aggregators.bulyan(f, non_finite=p),
        lambda V, f, who: oracles.bulyan(V, f, who.by_id),
        *(4, 3),
        keeps="shift scale same majority mean",
    ),
    "geometric_median": Rule(
        lambda f, p: aggregators.geometric_median(non_finite=p),
        lambda V, f, who: oracles.geometric_median(V, who.weight),
        keeps=f"{ALL} hull",
    ),
    "geometric_median exact": Rule(  # so many steps that what is left of the way does not show
        lambda f, p: aggregators.geometric_median(300, 1e-9, non_finite=p),
        lambda V, f, who: oracles.geometric_median(V, who.weight, 300, 1e-9),
        keeps=f"{ALL} majority hull",
        kappa=middle,
        variant=True,
    ),
    "centered_clipping": Rule(
        lambda f, p: aggregators.centered_clipping(2.0, non_finite=p),
        lambda V, f, who: oracles.centered_clipping(V, np.zeros(WIDTH), 2.0),
        keeps="turn",
        sums=True,
    ),
    "centered_clipping 3": Rule(
        lambda f, p: aggregators.centered_clipping(2.0, 3, p),
        lambda V, f, who: oracles.centered_clipping(V, np.zeros(WIDTH), 2.0, 3),
        keeps="turn",
        sums=True,
    ),
    "norm_bounding": Rule(
        lambda f, p: aggregators.norm_bounding(2.5, p),
        lambda V, f, who: oracles.norm_bounding(V, 2.5),
        keeps="turn",
        sums=True,
    ),
    "sign_majority": Rule(
        lambda f, p: aggregators.sign_majority(0.5, p),
        lambda V, f, who: oracles.sign_majority(V, 0.5),
        sums=True,
    ),
    "rlr": Rule(
        lambda f, p: aggregators.rlr(3, 0.5, non_finite=p),
        lambda V, f, who: oracles.rlr(V, who.weight, 3, 0.5),
        keeps="scale",
        sums=True,
    ),
    "fltrust": Rule(
        lambda f, p: aggregators.fltrust(TRUSTED, p),
        lambda V, f, who: oracles.fltrust(V, who.trusted),
        keeps="scale turn",
    ),
    "monna": Rule(
        lambda f, p: aggregators.monna(f, TRUSTED, p),
        lambda V, f, who: oracles.monna(V, f, who.trusted),
        *(2, 1),
        keeps=f"{ALL} hull",
    ),
    "mda": Rule(
        lambda f, p: aggregators.mda(f, p),
        lambda V, f, who: oracles.mda(V, f),
        *(2, 1),
        keeps=f"{ALL} majority mean hull",
        static=True,
    ),
    "caf": Rule(
        lambda f, p: aggregators.caf(f, p),
        lambda V, f, who: oracles.caf(V, f),
        *(2, 1),
        keeps=f"{ALL} majority mean hull",
    ),
    "bucketing mean": Rule(
        lambda f, p: aggregators.bucketing(aggregators.mean(p), 1),
        lambda V, f, who: oracles.mean(V),
        keeps=f"{ALL} mean hull",
        sums=True,
    ),
}
RULES |= {
    f"nnm {name}": pre(
        aggregators.nnm,
        oracles.nnm,
        name,
        keeps=keeps,
        kappa=after_nnm(RULES[name].kappa),
        deep=name != "krum byzfl",
    )
    for name, keeps in {
        "median": "shift scale same majority mean",
        "trimmed_mean": "shift scale same majority mean",
        "krum byzfl": f"{ALL} majority mean hull",
        "geometric_median exact": f"{ALL} majority mean",
    }.items()
}
RULES |= {
    "arc mean": pre(aggregators.arc, oracles.arc, "mean", keeps="scale turn same mean"),
    "arc multi_krum byzfl": pre(aggregators.arc, oracles.arc, "multi_krum byzfl", keeps="scale turn same mean", deep=True),
}
WITH_F = [name for name, rule in RULES.items() if rule.times]
ONCE = [name for name, rule in RULES.items() if not rule.variant and not rule.deep]  # one for each piece of code
