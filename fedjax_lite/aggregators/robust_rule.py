"""Make an aggregator from a robust rule: check n against f, and drop messages that are not finite."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fedjax_lite import tree
from fedjax_lite.aggregators.non_finite import check_policy, screen
from fedjax_lite.base import Aggregator, Client, Number, Tree
from fedjax_lite.refuse import whole

Rule = Callable[[Tree, Client, Int[Array, ""], Int[Array, ""]], Tree]  # messages, cohort, n, f -> aggregate


class Needs(NamedTuple):
    """A rule's condition n >= times f + plus."""

    times: int
    plus: int

    def __str__(self) -> str:
        return f"n >= {self.times}f+{self.plus}"

    def least(self, num_byzantine: Number) -> Number:
        """Return the smallest n for f = `num_byzantine`."""
        return self.times * num_byzantine + self.plus


def from_rule(name: str, rule: Rule, num_byzantine: Number, needs: Needs, non_finite: str = "drop") -> Aggregator:
    """Make an aggregator from a robust rule, which gets all messages together.

    The rule gets messages in float32 or wider, and must ignore the values in empty slots. A message whose squared norm is not finite
    is dropped: its slot becomes empty. Each lowers f by 1, not below 0. If fewer clients are left than the rule needs, the aggregate is 0.

    Args:
        name: of the rule, for errors.
        rule: `(messages, cohort, n, f) -> aggregate`: leaves `[clients, ...]`; n, the number of clients left, and f, the most Byzantine
            clients among them, int32 scalars.
        num_byzantine: f, a whole number of at least 0; may be a tracer.
        needs: the rule's condition on n and f.
        non_finite: what to do with messages that are not finite: "drop", "zero" (they count as zeros, f stays) or "propagate".

    Returns:
        An aggregator with metrics "non_finite" (messages that were not finite) and "too_few" (1 if the rule could not be
        applied).

    Raises:
        ValueError: for a number that is not whole or negative, an unknown policy; and while tracing, if there are fewer slots
            than the rule needs for this f.
    """
    whole(name, "num_byzantine", num_byzantine)
    check_policy(name, non_finite)

    def collect(messages, cohort, state):
        del state
        return messages, cohort

    def finish(part, state, key):
        del key
        messages, cohort = part
        check_slots(name, needs, num_byzantine, cohort.weight.shape[0])
        messages, cohort, dropped = screen(messages, cohort, non_finite)
        f = jnp.asarray(num_byzantine).astype(jnp.int32)
        f = jnp.maximum(f - dropped.astype(jnp.int32), 0) if non_finite == "drop" else f
        n = jnp.sum(cohort.weight > 0, dtype=jnp.int32)
        enough = n >= needs.least(f)
        aggregate = tree.zero_where_not(enough, rule(messages, cohort, n, f))
        return aggregate, state, {"non_finite": dropped, "too_few": 1.0 - enough.astype(jnp.float32)}

    return Aggregator(lambda message: (), collect, finish, additive=False)


def check_slots(name: str, needs: Needs, num_byzantine: Number, slots: int) -> None:
    """Refuse a cohort with fewer `slots` than the rule `name` needs; a `num_byzantine` that is traced is not checked.

    Raises:
        ValueError: for a cohort with too few slots.
    """
    if not isinstance(num_byzantine, jax.Array) and slots < needs.least(num_byzantine):
        raise ValueError(
            f"{name}: num_byzantine={num_byzantine} needs {needs} = {needs.least(num_byzantine)} clients a round, and the cohort has "
            f"{slots}: lower num_byzantine or sample more clients"
        )
