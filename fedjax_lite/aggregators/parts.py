"""Messages of several parts, such as a model's change and a control variate: a rule for each part."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite import tree
from fedjax_lite.aggregators.non_finite import is_finite
from fedjax_lite.base import Aggregator, Client, Tree
from fedjax_lite.ledger import dense_bits


def by_part(**rules: Aggregator) -> Aggregator:
    """A rule for each part of messages that have several, as those of `fl.algorithms.scaffold`: {"params": ..., "control": ...}.

    A message that is not finite in one part is not finite in all, so that every rule drops the same clients.

    Args:
        rules: an aggregator for each part, by the part's name.

    Returns:
        An aggregator whose aggregate has the same parts. A metric that two rules report has its part's name in front, but for
        "non_finite".

    Raises:
        TypeError: for a rule that is no aggregator.
        ValueError: for no rules, a private rule (one guarantee covers a whole message), secure sums of some parts only; and when called,
            for messages with other parts.

    >>> import fedjax_lite as fl
    >>> stack = {"params": jnp.array([1.0, 2.0, 90.0]), "control": jnp.array([1.0, 2.0, 3.0])}
    >>> cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> aggregator = by_part(params=fl.aggregators.median(), control=fl.aggregators.mean())
    >>> aggregate, _, _ = aggregator.finish(aggregator.collect(stack, cohort, ((), ())), ((), ()), jax.random.key(1))
    >>> float(aggregate["params"]), float(aggregate["control"])
    (2.0, 2.0)
    """
    _check(rules)
    additive = all(rule.additive for rule in rules.values())

    def init(message):
        _check_parts(rules, message)
        return tuple(rule.init(message[part]) for part, rule in rules.items())

    def inside(messages, cohort, state):
        _check_parts(rules, messages)
        finite = is_finite(messages, cohort.weight > 0)
        messages = jax.tree.map(lambda x: jnp.where(finite.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.nan), _floating(messages))
        return tuple(rule.collect(messages[part], cohort, kept) for (part, rule), kept in zip(rules.items(), state, strict=True))

    def collect(messages, cohort, state):
        return inside(messages, cohort, state) if additive else (messages, cohort)

    def finish(part, state, key):
        collected = part
        if not additive:
            messages, cohort = part
            collected = inside(messages, cohort, state)
        found = {}
        for i, ((name, rule), one) in enumerate(zip(rules.items(), collected, strict=True)):
            found[name] = rule.finish(one, state[i], jax.random.fold_in(key, i))
        aggregate = {name: value for name, (value, _, _) in found.items()}
        return aggregate, tuple(kept for _, kept, _ in found.values()), _told({name: told for name, (_, _, told) in found.items()})

    def bits(message):
        return sum(rule.bits(message[part]) if rule.bits else dense_bits(message[part]) for part, rule in rules.items())

    return Aggregator(
        init, collect, finish, additive,
        sums_only=any(rule.sums_only for rule in rules.values()),
        bits=bits if any(rule.bits for rule in rules.values()) else None,
        weighs=any(rule.weighs for rule in rules.values()),
    )  # fmt: skip


def mapped(each: Callable[[Tree], Tree], inner: Aggregator) -> Aggregator:
    """Change each message, on its own, before an aggregator gets it: what can be computed at the server is not sent.

    >>> import fedjax_lite as fl
    >>> halved = mapped(lambda message: message / 2, fl.aggregators.mean())
    >>> cohort = fl.sampling.cohort(jax.random.key(0), jnp.ones(2, int), jnp.arange(2))
    >>> float(halved.finish(halved.collect(jnp.array([1.0, 3.0]), cohort, ()), (), None)[0])
    1.0
    """

    def collect(messages: Tree, cohort: Client, state: Tree) -> Tree:
        return inner.collect(jax.vmap(each)(messages), cohort, state)

    count = inner.bits
    bits = None if count is None else lambda message: count(each(message))
    return inner._replace(init=lambda message: inner.init(each(message)), collect=collect, bits=bits)


def _floating(messages: Tree) -> Tree:
    """Cast whole numbers to float32, in which a part can be marked as not finite."""
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jnp.floating) else tree.wide(x).astype(jnp.float32), messages)


def _told(metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Join the rules' metrics; one that several report has its part's name in front, but for the messages that are not finite."""
    names = [name for told in metrics.values() for name in told]
    joined = {}
    for part, told in metrics.items():
        for name, value in told.items():
            joined[name if names.count(name) == 1 or name == "non_finite" else f"{part}_{name}"] = value
    return joined


def _check(rules: dict[str, Any]) -> None:
    """Refuse rules that cannot stand beside each other."""
    if not rules:
        raise ValueError("by_part: give a rule for each part of the message, such as params=fl.aggregators.median()")
    for part, rule in rules.items():
        if not isinstance(rule, Aggregator):
            raise TypeError(f"by_part: {part} must be a fl.Aggregator, got {rule!r}: call the function that makes one")
        if rule.privacy is not None:
            raise ValueError(f"by_part: the rule of {part} is private, and its guarantee is for a whole message: give it alone")
    if len({rule.sums_only for rule in rules.values()}) > 1:
        raise ValueError("by_part: some rules hide single messages (secure sums) and others look at them: take secure sums for all parts")


def _check_parts(rules: dict[str, Aggregator], message: Tree) -> None:
    """Refuse a message whose parts are not those that have rules."""
    parts = sorted(message) if isinstance(message, dict) else None
    if parts != sorted(rules):
        found = "no parts" if parts is None else f"the parts {', '.join(map(str, parts))}"
        raise ValueError(
            f"by_part: rules are for {', '.join(sorted(rules))}, and the message has {found}: give each part its rule "
            "(fl.algorithms.scaffold sends params and control), or a message of one part a rule alone"
        )
