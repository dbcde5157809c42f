"""Audit a mechanism: a lower bound on its epsilon, from runs with and without one client."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import betainccinv, betaincinv

from fedjax_lite import refuse
from fedjax_lite.base import Key, Tree
from fedjax_lite.engine.compute import compute
from fedjax_lite.engine.programs import Program
from fedjax_lite.engine.transforms import convert_closure

__all__ = ["Audit", "audit", "lower_bound"]


class Audit(NamedTuple):
    """The result of an audit."""

    epsilon: float  # the lower bound; 0 if the scores show none
    upper: int | float | None  # the accountant's bound
    most: float  # the largest lower bound that this number of runs can show
    delta: int | float
    confidence: float
    present: Float[np.ndarray, " half"]  # the scores of the runs with the canary
    absent: Float[np.ndarray, " half"]  # the scores of the runs without the canary

    @property
    def violated(self) -> bool:
        """Whether the lower bound is above the accountant's upper bound: then, but for bad luck, another mechanism was accounted for."""
        return self.upper is not None and self.epsilon > self.upper

    def __str__(self) -> str:
        runs = len(self.present)
        text = f"epsilon >= {self.epsilon:.4g} at delta {self.delta:.3g} ({100 * self.confidence:.4g} % confidence, "
        text += f"from {runs} runs with and {runs} without the canary, which can show {self.most:.4g} at most)"
        if self.upper is None:
            return text
        return f"{text};\nthe accountant's upper bound is {self.upper:.4g}: {'VIOLATED' if self.violated else 'consistent'}"


def audit(
    experiment: Callable[[Key, Array], Tree],
    canary: Callable[[Tree], Array] | Tree,
    runs: int,
    *,
    key: Key,
    delta: int | float,
    confidence: float = 0.95,
    upper: int | float | None = None,
    together: int | None = None,
) -> Audit:
    """Run an experiment many times with and without one client, the canary, and bound from below what it gives away.

    Half of the runs with, half without, each with a key of its own, in one compiled program. Each release becomes one number, the
    score, and `lower_bound` says how well the scores tell the two halves apart. A bound above the accountant's is evidence of a
    mistake: in the mechanism, or in what it was accounted as. One below it proves nothing: another canary might see more.

    Guarantees:
        1. An (epsilon, delta)-private experiment has a lower bound above epsilon with a probability of at most 1 - confidence.

    Args:
        experiment: `(key, present) -> release`, pure: all that leaves the server, for instance the model's parameters; `present` is a
            bool scalar, whether the canary takes part (multiply its weight in the cohort by it). The rest of the data must be the same.
            With `ddgauss` and `skellam`, where each client brings noise that must not go with it, zero its message instead: multiply
            the loss of its examples.
        canary: `release -> score`, a real scalar, or a direction, a tree like the release: the score is then the inner product with it.
            Whether scores rise or fall with the canary does not matter.
        runs: how many in all, even. 200 can show an epsilon of 2.7, 1000 one of 4.3 (`most`), and each unit more takes 2.7 times as many.
        key: of all runs; run i has fold_in(key, i).
        delta: in [0, 1), as for the accountant.
        confidence: in (0, 1).
        upper: the accountant's epsilon, such as `fl.privacy.epsilon(...)`, printed beside the bound.
        together: how many runs are vmapped at once; memory grows with it. By default 1 on a CPU, elsewhere 16.

    Returns:
        An `Audit`, which prints as a sentence, and has `violated`.

    Raises:
        ValueError: for numbers out of range, too few runs to show any epsilon, a canary that does not fit the release, and scores that
            are not finite, with how many.

    >>> def experiment(key, present):  # one client of norm 1, with noise of deviation 1
    ...     return jnp.where(present, 1.0, 0.0) + jax.random.normal(key)
    >>> print(audit(experiment, jnp.float32(1.0), 1000, key=jax.random.key(0), delta=1e-3, upper=3.14))
    epsilon >= 0.9814 at delta 0.001 (95 % confidence, from 500 runs with and 500 without the canary, which can show 4.341 at most);
    the accountant's upper bound is 3.14: consistent

    Source: Jagielski et al. 2020, "Auditing differentially private machine learning", algorithm 1; Nasr et al. 2021, "Adversary
    instantiation", for canaries that choose their message.
    """
    refuse.integer("audit", "runs", runs, least=2)
    if runs % 2:
        raise ValueError(f"audit: runs must be even, half with and half without the canary, got {runs}")
    if upper is not None and not (refuse.is_number(upper) and upper >= 0):
        raise ValueError(f"audit: upper must be an epsilon of at least 0, or None, got {upper!r}")
    if together is not None:
        refuse.integer("audit", "together", together, least=1)
    half = runs // 2
    most = lower_bound(np.ones(half), np.zeros(half), delta, confidence)
    if not most > 0:
        raise ValueError(f"audit: {runs} runs show no epsilon at confidence {confidence} and delta {delta} whatever they give: raise runs")

    def scored(numbers):
        release = experiment(jax.random.fold_in(key, numbers["run"]), numbers["present"])
        return {"score": _score(canary, release)}

    numbers = {"run": np.arange(runs, dtype=np.int32), "present": np.arange(runs) < half}
    stand_ins = {name: jax.ShapeDtypeStruct((), x.dtype) for name, x in numbers.items()}
    call, closed_over = convert_closure(scored, stand_ins)
    program = Program(list(range(runs)), call, closed_over, numbers, jax.eval_shape(call, closed_over, stand_ins))
    (results,) = compute([program], together)
    scores = results["score"].astype(np.float64)
    if lost := int(np.sum(~np.isfinite(scores))):
        raise ValueError(
            f"audit: {lost} of {runs} scores are not finite: runs diverge, or the canary overflows; train with smaller rates, or give a "
            "canary function with a finite score for every release"
        )
    present, absent = scores[:half], scores[half:]
    return Audit(lower_bound(present, absent, delta, confidence), upper, most, delta, confidence, present, absent)


def lower_bound(
    present: Float[np.ndarray, " half"] | Sequence[int | float],
    absent: Float[np.ndarray, " half"] | Sequence[int | float],
    delta: int | float,
    confidence: float = 0.95,
) -> float:
    r"""A lower confidence bound on epsilon from n scores of independent runs with a client and n without it.

    epsilon >= log((p_low - delta) / q_high),   p = Pr[score of one kind in S],  q = Pr[score of the other kind in S],

    which is what (epsilon, delta) means for a set S, with p_low <= p and q_high >= q. The sets are the scores above, and those below,
    a threshold: the k-th extreme score of the other kind, k = 1, 4, 16, ... <= n / 2. Why this holds:
        1. q of the set beyond the k-th of n scores has the distribution Beta(k, n - k + 1), whatever that of the scores (with ties q is
           smaller still): q_high is its upper quantile, the bound of Clopper and Pearson for k - 1 hits.
        2. The scores of the one kind are independent of that threshold, so their hits are binomial: p_low is the bound of Clopper and
           Pearson.
        3. Both kinds, both sides and each k make 4 K sets, each with two bounds: each is given (1 - confidence) / (8 K), and the largest
           epsilon of all is a bound (union bound). Nothing is chosen by what the scores are.

    Args:
        present: the scores with the client.
        absent: as many without it.
        delta: in [0, 1).
        confidence: in (0, 1).

    Returns:
        epsilon >= 0; at most that of scores which are all apart, about log(n / log(8 K / (1 - confidence))).

    Raises:
        ValueError: for numbers out of range, scores that are not as many or not finite.

    >>> round(lower_bound(np.arange(100.0), np.arange(100.0) + 50, delta=1e-5), 2), round(lower_bound(np.ones(100), np.zeros(100), 0), 2)
    (1.78, 2.75)

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits"; Jagielski et al. 2020, theorem 1; order statistics:
    Wilks 1941, "Determination of sample sizes for setting tolerance limits".
    """
    refuse.delta("audit", delta, or_zero=True)
    if not (refuse.is_number(confidence) and 0 < confidence < 1):
        raise ValueError(f"audit: confidence must be between 0 and 1, got {confidence!r}")
    present, absent = np.asarray(present, float), np.asarray(absent, float)
    n = present.size
    if n < 2 or present.ndim != 1 or present.shape != absent.shape or not (np.isfinite(present).all() and np.isfinite(absent).all()):
        raise ValueError(
            f"audit: present and absent must be lists of as many finite scores, at least 2, got shapes {present.shape} and {absent.shape}"
        )
    ranks = 4 ** np.arange(math.floor(math.log(n // 2, 4) + 1e-9) + 1)
    risk = (1 - confidence) / (8 * len(ranks))
    highest = betainccinv(ranks, n - ranks + 1, risk)
    best = 0.0
    for side in (1, -1):
        for one, other in ((present, absent), (absent, present)):
            thresholds = np.sort(-side * other)[ranks - 1]
            hits = np.sum(-side * one[:, None] < thresholds, axis=0)
            lowest = np.where(hits > 0, betaincinv(np.maximum(hits, 1), n - hits + 1, risk), 0)
            best = max(best, *np.log(np.maximum(lowest - delta, np.finfo(float).tiny) / highest))
    return float(best)


def _score(canary: Callable[[Tree], Array] | Tree, release: Tree) -> Float[Array, ""]:
    """Turn a release into a float scalar: by the function `canary`, or as inner product with the tree `canary`."""
    if callable(canary):
        score = jnp.asarray(canary(release))
        if score.shape or not jnp.issubdtype(score.dtype, jnp.floating):
            raise ValueError(f"audit: the canary must give a float scalar, got {score.dtype}{list(score.shape)}")
        return score
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (canary, release)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"audit: the canary must be a function, or a tree like the release, {shapes[1]}, got {shapes[0]}")
    products = jax.tree.map(lambda x, y: jnp.sum(jnp.asarray(x, jnp.result_type(float)) * y), canary, release)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))
