"""The checker of aggregators: every way to break the contract is caught by its own row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_leaf import column, mean_in_half, per_leaf, present

import fedjax_lite as fl
from fedjax_lite import aggregators, checks
from fedjax_lite.checks.aggregator_contract import REQUIRED

MEAN = aggregators.mean()


def after(change, rule=MEAN, **fields):
    """A rule whose (aggregate, state, metrics) are changed before they come out."""
    return rule._replace(finish=lambda part, state, key: change(*rule.finish(part, state, key)), **fields)


def norm_scaled(x, cohort):
    """The root's slope at 0 is not finite."""
    x, count = present(x, cohort)
    middle = jnp.sum(x, axis=0) / count
    return middle * jnp.sqrt(jnp.sum(middle**2))


def nan_in_the_slope(x, cohort):
    """The right value, but the branch that is not taken has a slope of NaN."""
    mask, count = column(cohort.weight > 0, x), jnp.maximum(jnp.sum(cohort.weight > 0), 1)
    return jnp.sum(jnp.where(mask, jnp.sign(x) * jnp.sqrt(x**2) ** 1.5, 0), axis=0) / count


def counting():
    """Adds 1 with every call."""
    calls = []

    def change(aggregate, state, metrics):
        calls.append(0)
        return jax.tree.map(lambda x: x + len(calls), aggregate), state, metrics

    return after(change)


def remembers_the_first():
    """The aggregate is right in the first round; the state is that of whoever came first."""
    stacked = aggregators.from_stack(lambda messages, cohort: (messages, cohort))

    def finish(part, state, key):
        messages, cohort = part
        mean = MEAN.finish(MEAN.collect(messages, cohort, ()), (), key)[0]
        return mean, jax.tree.map(lambda x: x[0], messages), {}

    return fl.Aggregator(lambda message: message, stacked.collect, finish, additive=False)


def python_branch(x, cohort):
    x, count = present(x, cohort)
    return jnp.sum(x, axis=0) / count if float(jnp.sum(x)) < 1e9 else x[0]


def not_batched(x, cohort):
    """Fails where it is mapped over several stacks."""
    x, count = present(x, cohort)
    shape = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    return jax.pure_callback(lambda x: np.sum(np.asarray(x), axis=0), shape, x) / count


@jax.custom_batching.custom_vmap
def doubled_when_mapped(x):
    return x


@doubled_when_mapped.def_vmap
def _(size, batched, x):
    return 2 * x, True


ORDER, EMPTY, NOBODY = "order of clients does not matter", "empty slots do not matter", "no clients give zero"
JIT, PURE, VMAP, SHAPE = "jit equals eager", "called twice, the same", "vmap equals the loop", "shape and dtype of a message"
HALF, GROUPS, STATE = "half precision loses nothing", "any grouping of clients", "state keeps its kind"
METRICS, HOST, SLOPE = "metrics are float scalars", "nothing touches the host", "finite gradient"

ADDED = aggregators.median()._replace(additive=True)
COUNTED = MEAN._replace(init=lambda message: jnp.zeros((), jnp.int32))

# what is wrong -> the property that must say so, and the rule.
BROKEN = {
    "the first message wins": (ORDER, per_leaf(lambda x, c: x[jnp.argmax(c.weight > 0)])),
    "the last counts double": (ORDER, per_leaf(lambda x, c: mean_in_half(x.at[-1].multiply(2), c))),
    "weights of other clients": (ORDER, per_leaf(lambda x, c: present(x * column(jnp.arange(1.0, len(x) + 1), x), c)[0].sum(0))),
    "a state of the first client": (ORDER, remembers_the_first()),
    "empty slots are counted": (EMPTY, per_leaf(lambda x, c: jnp.mean(present(x, c)[0], axis=0))),
    "empty slots are added": (EMPTY, per_leaf(lambda x, c: jnp.sum(x, axis=0) / jnp.maximum(jnp.sum(c.weight > 0), 1))),
    "empty slots times 0": (EMPTY, per_leaf(lambda x, c: jnp.sum(x * column(c.weight > 0, x), axis=0) / 11)),
    "0 / 0": (NOBODY, per_leaf(lambda x, c: jnp.sum(present(x, c)[0], axis=0) / jnp.sum(c.weight > 0))),
    "one for nobody": (NOBODY, after(lambda a, s, m: (jax.tree.map(lambda x: jnp.where(jnp.any(x != 0), x, 1), a), s, m))),
    "a branch in Python": (JIT, per_leaf(python_branch)),
    "another value when compiled": (JIT, per_leaf(lambda x, c: mean_in_half(x, c) + isinstance(x, jax.core.Tracer))),
    "counts its calls": (PURE, counting()),
    "a callback that can't be mapped": (VMAP, per_leaf(not_batched)),
    "another value when mapped": (VMAP, per_leaf(lambda x, c: doubled_when_mapped(mean_in_half(x, c)))),
    "an axis too much": (SHAPE, after(lambda a, s, m: (jax.tree.map(lambda x: x[None], a), s, m))),
    "a list of leaves": (SHAPE, after(lambda a, s, m: (jax.tree.leaves(a), s, m))),
    "always bfloat16": (SHAPE, after(lambda a, s, m: (jax.tree.map(lambda x: x.astype(jnp.bfloat16), a), s, m))),
    "always float16": (SHAPE, per_leaf(lambda x, c: mean_in_half(x, c).astype(jnp.float16))),
    "whole numbers": (SHAPE, after(lambda a, s, m: (jax.tree.map(lambda x: x.astype(jnp.int32), a), s, m))),
    "a sum in half precision": (HALF, per_leaf(mean_in_half)),
    "a median that claims to add": (GROUPS, ADDED),
    "a sum that claims to concatenate": (GROUPS, MEAN._replace(additive=False)),
    "a mean of groups": (
        GROUPS,
        fl.Aggregator(
            lambda m: (),
            lambda messages, c, s: jax.tree.map(lambda x: mean_in_half(x, c), messages),
            lambda part, s, key: (part, s, {}),
            True,
        ),
    ),
    "a state that becomes a float": (STATE, after(lambda a, s, m: (a, s + 1.0, m), COUNTED)),
    "a state that hardens": (STATE, after(lambda a, s, m: (a, s + jnp.ones(()), m), MEAN._replace(init=lambda message: 1.0))),
    "a state that grows": (STATE, after(lambda a, s, m: (a, (s, s), m), COUNTED)),
    "a state of another shape": (STATE, after(lambda a, s, m: (a, jnp.zeros(2, jnp.int32), m), COUNTED)),
    "a metric that is a vector": (METRICS, after(lambda a, s, m: (a, s, {"norms": jnp.zeros(3)}))),
    "a metric that is a count": (METRICS, after(lambda a, s, m: (a, s, {"dropped": jnp.int32(3)}))),
    "metrics in a tuple": (METRICS, after(lambda a, s, m: (a, s, (jnp.zeros(()),)))),
    "prints": (HOST, per_leaf(lambda x, c: (jax.debug.callback(lambda x: None, x), mean_in_half(x, c))[1])),
    "a root at zero": (SLOPE, per_leaf(norm_scaled)),
    "a root in an empty slot": (SLOPE, per_leaf(nan_in_the_slope)),
    "a loop without an end known": (
        SLOPE,
        # (With infinity among the messages it would have none.)
        per_leaf(
            lambda x, c: jax.lax.while_loop(
                lambda s: jnp.any((jnp.abs(s) > 1e9) & (jnp.abs(s) < jnp.inf)), lambda s: s / 2, mean_in_half(x, c)
            )
        ),
    ),
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_a_broken_rule_is_caught(wrong):
    property, rule = BROKEN[wrong]
    report = checks.aggregator(rule, only=[property])
    assert report.holds(property) == "no", report
    assert not report.ok and property in str(report).splitlines()[-1]


def test_every_required_property_has_a_rule_that_breaks_it():
    assert set(REQUIRED) == {property for property, _ in BROKEN.values()}


@pytest.mark.deep
def test_a_broken_rule_breaks_no_other_promise():
    """Of one in whose evidence the others would drown."""
    property, rule = BROKEN["a metric that is a count"]
    assert checks.aggregator(rule, clients=5).broken == [property]
