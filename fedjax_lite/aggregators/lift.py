"""From a bare function to an aggregator."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_lite import tree
from fedjax_lite.base import Aggregator, Client, Tree


def from_sum(each: Callable[[Tree, Client], Tree], total: Callable[[Tree], Tree]) -> Aggregator:
    """An aggregator that is a function of a sum over clients, so that clients can be added in any grouping.

    aggregate = total(sum_k each(message_k, client_k)), over the slots whose weight is not 0.

    Args:
        each: one client's message and facts to the tree that is summed.
        total: the sum to the aggregate.

    >>> plain_mean = from_sum(lambda message, client: (message, 1.0), lambda total: jax.tree.map(lambda x: x / total[1], total[0]))
    """

    def collect(messages, cohort, state):
        del state
        terms = jax.vmap(each)(messages, cohort)
        return jax.tree.map(lambda x: jnp.sum(x, axis=0), tree.zero_where_not(cohort.weight > 0, terms))

    return Aggregator(lambda message: (), collect, lambda part, state, key: (total(part), state, {}), additive=True)


def from_stack(fn: Callable[[Tree, Client], Tree]) -> Aggregator:
    """An aggregator that must see all messages together.

    Args:
        fn: `(messages, cohort) -> aggregate`; messages have leaves `[clients, ...]`, and slots with `cohort.weight == 0` are
            empty: whatever they hold must not matter.

    >>> first = from_stack(lambda messages, cohort: jax.tree.map(lambda x: x[jnp.argmax(cohort.weight > 0)], messages))
    """

    def collect(messages, cohort, state):
        del state
        return messages, cohort

    return Aggregator(lambda message: (), collect, lambda part, state, key: (fn(*part), state, {}), additive=False)
