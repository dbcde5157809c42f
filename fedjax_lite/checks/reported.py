"""What the contract leaves open and a user wants to know, one function a property."""

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.checks.answers import Verdict
from fedjax_lite.checks.breakdown import LIMIT, honest
from fedjax_lite.checks.probe import Probe, compare
from fedjax_lite.checks.required import draws


def translation(built: Probe) -> Verdict:
    """R(V + t) = R(V) + t."""
    shift = np.asarray(np.random.default_rng(1).normal(size=built.messages.shape[1]), np.float32)
    return compare(built, [(built.result(built.messages + shift), built.result(built.messages) + shift)])


def scaling_up(built: Probe) -> Verdict:
    """R(aV) = a R(V), a > 0."""
    return compare(built, [(built.result(a * built.messages), a * built.result(built.messages)) for a in np.array([0.3, 7], np.float32)])


def mirroring(built: Probe) -> Verdict:
    """R(aV) = a R(V), a < 0."""
    return compare(built, [(built.result(-a * built.messages), -a * built.result(built.messages)) for a in np.array([1, 3], np.float32)])


def unanimous(built: Probe) -> Verdict:
    """n identical messages."""
    same = np.repeat(built.messages[:1], len(built.messages), axis=0)
    return compare(built, [(built.result(same), same[0].astype(float))])


def coordinate_range(built: Probe) -> Verdict:
    """Between the smallest and the largest value of each coordinate."""
    result, slack = built.result(built.messages), 1e-5 * np.abs(built.messages).max()
    over = max(np.max(result - built.messages.max(0)), np.max(built.messages.min(0) - result))
    if not np.isfinite(over):
        return "no", "the aggregate is not finite"
    return "yes" if over <= slack else "no", f"outside by {max(over, 0):.1g}"


def convex_hull(built: Probe) -> Verdict:
    """A mixture of the messages with weights of at least 0 that sum to 1; unique, since they are in general position."""
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
    """A cohort of one slot."""
    alone = built.messages[:1]
    return compare(built, [(built.result(alone, jax.tree.map(lambda x: x[:1], built.equal)), alone[0].astype(float))])


def the_mean(built: Probe) -> Verdict:
    """The plain mean of messages that nobody attacks."""
    verdict, evidence = compare(built, [(built.result(built.messages), built.messages.mean(0, dtype=float))])
    middle, spread = honest(built.messages)
    distance = np.linalg.norm(built.result(built.messages) - middle)
    return verdict, f"{distance / spread:.2g} spreads from it" if np.isfinite(distance) else evidence


def weights(built: Probe) -> Verdict:
    """Another `client.weight`, none 0."""
    return _changed(built, built.equal._replace(weight=built.varied.weight))


def sizes(built: Probe) -> Verdict:
    """Another `client.size`."""
    return _changed(built, built.equal._replace(size=built.varied.size))


def _changed(built, cohort):
    verdict, evidence = compare(built, [(built.result(built.messages, cohort), built.result(built.messages))])
    return {"yes": "no", "no": "yes"}[verdict], evidence


def needs_key(built: Probe) -> Verdict:
    """Other keys, the same messages."""
    return ("yes", "it changes with the key") if draws(built) else ("no", "the same for 4 keys")


def half_stays(built: Probe) -> Verdict:
    """The dtype of the aggregate of bfloat16 messages."""
    stack = built.stack(built.messages, jnp.bfloat16)
    found = {str(x.dtype) for x in jax.tree.leaves(jax.eval_shape(built.eager, stack, built.equal, built.state, built.key)[0])}
    return "yes" if found == {"bfloat16"} else "no", f"{', '.join(sorted(found))} for messages of bfloat16"


def _withstands(*values):
    """One message, whole or in one coordinate, of such values."""

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
