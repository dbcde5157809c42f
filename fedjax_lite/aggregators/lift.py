"""Make an aggregator from a function, or put a function of all messages in front of an aggregator."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_lite import tree
from fedjax_lite.aggregators.non_finite import check_policy, screen
from fedjax_lite.aggregators.sums import sum_rows
from fedjax_lite.base import Aggregator, Client, Key, Tree


def from_sum(each: Callable[[Tree, Client], Tree], total: Callable[[Tree], Tree], non_finite: str = "propagate") -> Aggregator:
    """An aggregator that is a function of a sum over clients, so that clients can be added in any grouping.

    aggregate = total(sum_k each(message_k, client_k)), over the slots whose weight is not 0.

    Args:
        each: one client's message and facts to the tree that is summed: half precision in float32, truth values and whole numbers of
            less than 32 bits in int32.
        total: the sum to the aggregate.
        non_finite: "propagate" passes messages on as they are. "drop" leaves out messages whose squared norm is not finite, "zero" sets
            them to zeros; both pass messages in float32 or wider and add the metric "non_finite", the number of these messages.

    >>> plain_mean = from_sum(lambda message, client: (message, 1.0), lambda total: jax.tree.map(lambda x: x / total[1], total[0]))
    """

    check_policy("from_sum", non_finite)

    def collect(messages, cohort, state):
        del state
        dropped = jnp.zeros(())
        if non_finite != "propagate":
            messages, cohort, dropped = screen(messages, cohort, non_finite)

        def term(message, client):
            return each(tree.zero_where_not(client.weight > 0, message), client)  # NaN in an empty slot would spoil derivatives

        return sum_rows(term, cohort.weight > 0, messages, cohort), dropped

    def finish(part, state, key):
        del key
        terms, dropped = part
        return total(terms), state, {} if non_finite == "propagate" else {"non_finite": dropped}

    return Aggregator(lambda message: (), collect, finish, additive=True)


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


def transformed(
    transform: Callable[[Tree, Client, Tree, Key], tuple[Tree, Client, Tree]],
    inner: Aggregator,
    init: Callable[[Tree], Tree] = lambda message: (),
) -> Aggregator:
    """An aggregator that changes all messages together before an inner aggregator gets them.

    Args:
        transform: `(messages, cohort, state, key) -> messages, cohort, state`; it may change how many slots there are.
        inner: any aggregator, which is given what the transform returns.
        init: message -> the transform's first state.

    Raises:
        TypeError: if inner is no aggregator.
        ValueError: for an inner under which the server sees no single messages, such as `secure_mean`, and a private one.

    >>> def double(messages, cohort, state, key):
    ...     return jax.tree.map(lambda x: 2 * x, messages), cohort, state
    >>> doubled = transformed(double, from_stack(lambda messages, cohort: messages[0]))
    """

    if not isinstance(inner, Aggregator):
        raise TypeError(f"inner must be a fl.Aggregator, got {inner!r}: call the function that makes one")
    if inner.sums_only:
        raise ValueError(
            "inner hides single messages from the server (secure sums), and what stands before it must see them: leave one of them out"
        )
    if inner.privacy is not None:
        raise ValueError(
            "inner guarantees privacy for messages of one client each, and what stands before it mixes them: leave one of them out"
        )

    def collect(messages, cohort, state):
        del state
        return messages, cohort

    def finish(part, state, key):
        transform_state, inner_state = state
        messages, cohort = part
        messages, cohort, transform_state = transform(messages, cohort, transform_state, jax.random.fold_in(key, 0))
        part = inner.collect(messages, cohort, inner_state)
        aggregate, inner_state, metrics = inner.finish(part, inner_state, jax.random.fold_in(key, 1))
        return aggregate, (transform_state, inner_state), metrics

    return Aggregator(lambda message: (init(message), inner.init(message)), collect, finish, additive=False, weighs=inner.weighs)
