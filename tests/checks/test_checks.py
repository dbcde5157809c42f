"""The checker of aggregators: what keeps the contract passes, and every way to break it is caught by its own row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite import aggregators, checks

MEAN = aggregators.mean()


def per_leaf(fn):
    """A rule without state from a function of one stacked leaf and the cohort."""
    return aggregators.from_stack(lambda messages, cohort: jax.tree.map(lambda x: fn(x, cohort), messages))


def after(change, rule=MEAN, **fields):
    """A rule whose (aggregate, state, metrics) are changed before they come out."""
    return rule._replace(finish=lambda part, state, key: change(*rule.finish(part, state, key)), **fields)


def column(mask, x):
    return mask.reshape((-1,) + (1,) * (x.ndim - 1))


def present(x, cohort):
    """A leaf with zeros in the empty slots, and how many slots are not."""
    mask = cohort.weight > 0
    return jnp.where(column(mask, x), x, 0), jnp.maximum(jnp.sum(mask), 1)


def mean_in_half(x, cohort):
    """Added up in the dtype it has, one after another."""
    x, count = present(x, cohort)
    return jax.lax.fori_loop(0, len(x), lambda i, s: s + x[i], jnp.zeros_like(x[0])) / count.astype(x.dtype)


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
    report = checks.aggregator(rule)
    assert report.holds(property) == "no", report
    assert not report.ok and property in str(report).splitlines()[-1]


def test_every_required_property_has_a_rule_that_breaks_it():
    required = {row.property for row in checks.aggregator(MEAN).rows if row.required}
    assert required == {property for property, _ in BROKEN.values()}


# name -> rule, the measured breakdown of 11 clients, and what is said of it without being required.
GOOD = {
    "mean": (MEAN, 0, dict(mean=True, hull=True, box=True, weight=False, size=False, nan=True, negative=True)),
    "weighted_mean": (
        aggregators.weighted_mean(),
        0,
        dict(mean=True, hull=True, box=True, weight=True, size=True, nan=True, negative=True),
    ),
    "median": (aggregators.median(), 5, dict(mean=False, hull=False, box=True, weight=False, size=False, nan=True, negative=True)),
    "trimmed_mean": (
        aggregators.trimmed_mean(2),
        2,
        dict(mean=False, hull=False, box=True, weight=False, size=False, nan=True, negative=True),
    ),
}
SAID = dict(
    mean="the mean when nobody attacks",
    hull="inside the convex hull",
    box="inside the coordinate range",
    weight="client.weight matters",
    size="client.size matters",
    nan="withstands a message of NaN",
    negative="turns with the messages' sign",
)


@pytest.mark.parametrize("name", GOOD)
def test_good_rules_keep_the_contract(name):
    rule, breakdown, said = GOOD[name]
    report = checks.aggregator(rule)
    assert report.breakdown == breakdown, report
    assert {word: report.holds(property) == "yes" for word, property in SAID.items()} == said, report
    assert all(report.holds(property) == "yes" for property in ("moves along with the messages", "equal messages come back"))
    assert not report.broken, report
    assert str(report).endswith("\nkeeps the contract")


@pytest.mark.parametrize("clients, f", [(5, 2), (6, 2), (9, 4)])
def test_the_breakdown_of_the_median_follows_the_number_of_clients(clients, f):
    assert checks.aggregator(aggregators.median(), clients=clients, message=jnp.zeros(9), seed=3).breakdown == f


def clipped_mean(most):
    """Each message scaled down to a norm; the aggregate can't be further from 0, whoever sends what."""

    def each(message, client):
        norm = jnp.sqrt(1e-12 + sum(jnp.sum(x**2) for x in jax.tree.leaves(message)))
        return jax.tree.map(lambda x: x * jnp.minimum(1, most / norm).astype(x.dtype), message), 1.0

    return aggregators.from_sum(each, lambda sums: jax.tree.map(lambda x: x.astype(jnp.float32) / jnp.maximum(sums[1], 1), sums[0]))


def test_a_bounded_rule_has_no_breakdown():
    report = checks.aggregator(clipped_mean(1.0), clients=5)
    assert report.breakdown == 4 and report.holds("moves along with the messages") == "no"
    assert report.holds("equal messages come back") == "no" and report.holds("scales with the messages") == "no"


def momentum():
    """A rule with a state: the mean of this round and the last aggregate."""

    def finish(part, state, key):
        mean = MEAN.finish(part, (), key)[0]
        new = jax.tree.map(lambda s, a: (0.5 * s + 0.5 * a).astype(s.dtype), state, mean)
        return new, new, {"norm": jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(new)))}

    return fl.Aggregator(lambda message: message, lambda m, c, s: MEAN.collect(m, c, ()), finish, additive=True)


def noisy(scale):
    """A rule that draws from its key."""

    def change(part, state, key):
        aggregate, state, metrics = MEAN.finish(part, state, key)
        drawn = [jax.random.normal(jax.random.fold_in(key, i), x.shape) for i, x in enumerate(jax.tree.leaves(aggregate))]
        noise = jax.tree.unflatten(jax.tree.structure(aggregate), drawn)
        return jax.tree.map(lambda x, z: x + scale * z, aggregate, noise), state, metrics

    return MEAN._replace(finish=change)


def test_a_rule_with_a_state():
    report = checks.aggregator(momentum())
    assert report.ok and report.breakdown == 0, report
    assert ("3 arrays", "norm") == tuple(row.evidence for row in report.rows if row.property in (STATE, METRICS))


def test_a_rule_that_draws_from_its_key():
    report = checks.aggregator(noisy(0.1))
    assert report.holds("depends on its key") == "yes" and report.holds(NOBODY) == "no"
    assert report.broken == [NOBODY], report


def refusing(n):
    def reduce(messages, cohort):
        if len(cohort.weight) < n:
            raise ValueError(f"patient: needs at least {n} clients, got {len(cohort.weight)}")
        return jax.tree.map(lambda x: mean_in_half(x, cohort), messages)

    return aggregators.from_stack(reduce)


def test_a_rule_that_refuses_so_few_clients_is_not_called_broken():
    report = checks.aggregator(refusing(12))
    assert {row.holds for row in report.rows} == {"refused"} and not report.ok and not report.broken and report.breakdown is None
    assert report.rows[0].evidence == "ValueError: patient: needs at least 12 clients, got 11"
    assert str(report).endswith("it refuses 11 clients; check it with another number of clients")


def test_a_refusal_of_one_client_only_is_said():
    report = checks.aggregator(refusing(5))
    assert report.holds("one client is its own aggregate") == "refused" and report.broken == [HALF]


# what is wrong -> its rule, and what the first row says
UNUSABLE = {
    "two values": (
        MEAN._replace(finish=lambda part, s, k: (part, s)),
        "TypeError: finish must return (aggregate, state, metrics), it returned 2",
    ),
    "one value": (
        MEAN._replace(finish=lambda part, s, k: part[0][0]),
        "TypeError: finish must return (aggregate, state, metrics), it returned dict",
    ),
    "an argument too few": (MEAN._replace(collect=lambda messages, cohort: messages), "TypeError: "),
    "no function": (MEAN._replace(init=None), "TypeError: 'NoneType' object is not callable"),
    "an error in jax": (per_leaf(lambda x, c: x.reshape(5, -1)), "TypeError: cannot reshape"),
    "a ValueError of jax": (per_leaf(lambda x, c: jnp.concatenate([x, x[0]])), ""),
    "division by zero": (per_leaf(lambda x, c: x[0] / (1 // 0)), "ZeroDivisionError: "),
}


@pytest.mark.parametrize("wrong", UNUSABLE)
def test_a_rule_that_can_not_run_gives_rows_not_a_traceback(wrong):
    rule, evidence = UNUSABLE[wrong]
    report = checks.aggregator(rule)
    assert {row.holds for row in report.rows} == {"no"} and report.rows[0].evidence.startswith(evidence), report
    assert not report.ok and report.breakdown is None and "\n" not in report.rows[0].evidence


def test_any_message():
    message = (jnp.zeros((2, 3, 2), jnp.bfloat16), [jnp.zeros(0), 1.0])
    assert checks.aggregator(aggregators.median(), clients=4, message=message).ok
    few = checks.aggregator(aggregators.median(), clients=4, message=jnp.zeros(2))
    assert few.ok and few.holds("inside the convex hull") == "not applicable"


def test_in_double_precision_too(x64):
    assert checks.aggregator(MEAN).ok


def test_what_is_no_aggregator():
    with pytest.raises(Exception, match="call the function that makes one|aggregator"):
        checks.aggregator(aggregators.median)
    with pytest.raises(ValueError, match="at least 3, got 2"):
        checks.aggregator(MEAN, clients=2)
    with pytest.raises(ValueError, match="must hold numbers"):
        checks.aggregator(MEAN, message={})
