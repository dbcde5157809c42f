"""Checks of the properties that the contract leaves open, reported for information, a function for each."""

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.checks.aggregator_contract import draws
from fedjax_lite.checks.answers import Verdict
from fedjax_lite.checks.breakdown import LIMIT, honest
from fedjax_lite.checks.probe import Probe, compare


def translation(built: Probe) -> Verdict:
    """Check R(V + t) = R(V) + t."""
    shift = np.asarray(np.random.default_rng(1).normal(size=built.messages.shape[1]), np.float32)
    return compare(built, [(built.result(built.messages + shift), built.result(built.messages) + shift)])


def scaling_up(built: Probe) -> Verdict:
    """Check R(aV) = a R(V) for a > 0."""
    return compare(built, [(built.result(a * built.messages), a * built.result(built.messages)) for a in np.array([0.3, 7], np.float32)])


def mirroring(built: Probe) -> Verdict:
    """Check R(aV) = a R(V) for a < 0."""
    return compare(built, [(built.result(-a * built.messages), -a * built.result(built.messages)) for a in np.array([1, 3], np.float32)])


def unanimous(built: Probe) -> Verdict:
    """Check that n equal messages aggregate to the same message."""
    same = np.repeat(built.messages[:1], len(built.messages), axis=0)
    return compare(built, [(built.result(same), same[0].astype(float))])


def coordinate_range(built: Probe) -> Verdict:
    """Check that each coordinate lies between the smallest and the largest value in the messages."""
    result, slack = built.result(built.messages), 1e-5 * np.abs(built.messages).max()
    over = max(np.max(result - built.messages.max(0)), np.max(built.messages.min(0) - result))
    if not np.isfinite(over):
        return "no", "the aggregate is not finite"
    return "yes" if over <= slack else "no", f"outside by {max(over, 0):.1g}"


def convex_hull(built: Probe) -> Verdict:
    """Check that the aggregate is a mixture of the messages, with weights of at least 0 that sum to 1.

    The weights are unique, since random messages are in general position.
    """
    clients, coordinates = built.messages.shape
    if coordinates < clients - 1:
        return "not applicable", f"needs a message of {clients - 1} coordinates or more"
    result = built.result(built.messages)
    vertices = np.vstack([built.messages.T.astype(float), np.ones(clients)])
    weights = np.linalg.lstsq(vertices, np.append(result, 1.0), rcond=None)[0]
    off = np.abs(vertices @ weights - np.append(result, 1.0)).max()
    inside = off <= 1e-4 * np.abs(built.messages).max() and weights.min() >= -1e-3
    return "yes" if inside else "no", f"least weight {weights.min():.1g}, {off:.1g} off their plane"


def one_client(built: Probe) -> Verdict:
    """Check that a cohort of one slot aggregates to its message."""
    alone = built.messages[:1]
    return compare(built, [(built.result(alone, jax.tree.map(lambda x: x[:1], built.equal)), alone[0].astype(float))])


def the_mean(built: Probe) -> Verdict:
    """Compare the aggregate of honest messages with their plain mean."""
    verdict, evidence = compare(built, [(built.result(built.messages), built.messages.mean(0, dtype=float))])
    middle, spread = honest(built.messages)
    distance = np.linalg.norm(built.result(built.messages) - middle)
    return verdict, f"{distance / spread:.2g} spreads from it" if np.isfinite(distance) else evidence


def weights(built: Probe) -> Verdict:
    """Check whether the aggregate depends on `client.weight`, beyond empty slots."""
    return _aggregate_changes(built, built.equal._replace(weight=built.varied.weight))


def sizes(built: Probe) -> Verdict:
    """Check whether the aggregate depends on `client.size`."""
    return _aggregate_changes(built, built.equal._replace(size=built.varied.size))


def _aggregate_changes(built, cohort):
    """Say whether `cohort` in place of the equal clients changes the aggregate."""
    verdict, evidence = compare(built, [(built.result(built.messages, cohort), built.result(built.messages))])
    return {"yes": "no", "no": "yes"}[verdict], evidence


def needs_key(built: Probe) -> Verdict:
    """Check whether the aggregate depends on the key."""
    return ("yes", "it changes with the key") if draws(built) else ("no", "the same for 4 keys")


def half_stays(built: Probe) -> Verdict:
    """Check whether the aggregate of bfloat16 messages is bfloat16."""
    stack = built.stack(built.messages, jnp.bfloat16)
    dtypes = {str(x.dtype) for x in jax.tree.leaves(jax.eval_shape(built.eager, stack, built.equal, built.state, built.key)[0])}
    return "yes" if dtypes == {"bfloat16"} else "no", f"{', '.join(sorted(dtypes))} for messages of bfloat16"


def _withstands(*values):
    """Make a check that sets one message, whole or in one coordinate, to each of `values`."""

    def check(built: Probe) -> Verdict:
        middle, spread = honest(np.delete(built.messages, 1, axis=0))
        worst = 0.0
        for value in values:
            for where in (slice(None), 0):
                rows = built.messages.copy()
                rows[1, where] = value
                result = built.result(rows)
                if not np.isfinite(result).all():
                    return "no", f"the aggregate is not finite for a message of {value:g}"
                worst = max(worst, float(np.linalg.norm(result - middle)) / spread)
        return "yes" if worst <= LIMIT else "no", f"moved {worst:.2g} spreads"

    return check


REPORTED = {
    "moves along with the messages": translation,
    "scales with the messages": scaling_up,
    "turns with the messages' sign": mirroring,
    "equal messages come back": unanimous,
    "inside the coordinate range": coordinate_range,
    "inside the convex hull": convex_hull,
    "one client is its own aggregate": one_client,
    "the mean when nobody attacks": the_mean,
    "client.weight matters": weights,
    "client.size matters": sizes,
    "depends on its key": needs_key,
    "half precision stays half precision": half_stays,
    "withstands a message of NaN": _withstands(np.nan),
    "withstands a message of Inf": _withstands(np.inf, -np.inf),
    "withstands a message of 1e30": _withstands(1e30, -1e30),
}
