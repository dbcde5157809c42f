"""Drop, set to zero or pass on the messages that are not finite, and count them."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedjax_lite import tree
from fedjax_lite.aggregators.sums import squared_norms
from fedjax_lite.base import Client, Tree
from fedjax_lite.tree import wide

Policy = Literal["drop", "zero", "propagate"]


def check_policy(rule: str, policy: str) -> str:
    """Return `policy`, or refuse an unknown policy for the aggregator `rule`.

    Raises:
        ValueError: for an unknown policy.
    """
    if policy not in ("drop", "zero", "propagate"):
        raise ValueError(f'{rule}: non_finite must be "drop", "zero" or "propagate", got {policy!r}')
    return policy


def is_finite(messages: Tree, present: Bool[Array, " clients"]) -> Bool[Array, " clients"]:
    """Mark messages with a finite squared norm (in float32: no NaN, infinity or magnitude above 1.8e19), and empty slots."""
    return jnp.isfinite(squared_norms(jax.lax.stop_gradient(messages), present))


def screen(messages: Tree, cohort: Client, policy: str) -> tuple[Tree, Client, Float[Array, ""]]:
    """Apply `policy` to messages that are not finite.

    Args:
        policy: "drop" empties the slot of a message that is not finite, "zero" keeps the slot with a message of zeros, "propagate" passes
            the message on.

    Returns:
        The messages in float32 or wider, with arbitrary values in empty slots; the cohort; the number of messages that are not finite, a
        float32 scalar.
    """
    present = cohort.weight > 0
    finite = is_finite(messages, present)
    messages = jax.tree.map(wide, messages)
    if policy == "zero":
        messages = tree.zero_where_not(finite, messages)
    if policy == "drop":
        cohort = cohort._replace(weight=jnp.where(finite, cohort.weight, 0))
    return messages, cohort, jnp.sum(~finite, dtype=jnp.float32)
