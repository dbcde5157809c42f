"""Messages that are not finite: dropped and counted, set to zero, or passed on."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fedjax_lite import tree
from fedjax_lite.aggregators.stack import squared_norms
from fedjax_lite.base import Client, Tree
from fedjax_lite.tree import wide

Policy = Literal["drop", "zero", "propagate"]


def checked(rule: str, policy: str) -> str:
    """A policy as it is, if it is one.

    Raises:
        ValueError: if it is none.
    """
    if policy not in ("drop", "zero", "propagate"):
        raise ValueError(f'{rule}: non_finite must be "drop", "zero" or "propagate", got {policy!r}')
    return policy


def is_finite(messages: Tree, present: Bool[Array, " clients"]) -> Bool[Array, " clients"]:
    """Which messages have a finite squared norm: in float32 none with NaN, infinity or a coordinate past 1.8e19. Empty slots do."""
    return jnp.isfinite(squared_norms(jax.lax.stop_gradient(messages), present))


def screened(messages: Tree, cohort: Client, policy: str) -> tuple[Tree, Client, Float[Array, ""]]:
    """A cohort in which messages that are not finite are dealt with.

    Args:
        policy: "drop" makes the slot of such a message an empty one, "zero" keeps it in the cohort with a message of zeros,
            "propagate" passes it on.

    Returns:
        The messages in float32 or wider, whatever there is in empty slots; the cohort; how many messages were not finite.
    """
    present = cohort.weight > 0
    finite = is_finite(messages, present)
    messages = jax.tree.map(wide, messages)
    if policy == "zero":
        messages = tree.zero_where_not(finite, messages)
    if policy == "drop":
        cohort = cohort._replace(weight=jnp.where(finite, cohort.weight, 0))
    return messages, cohort, jnp.sum(~finite, dtype=jnp.float32)
