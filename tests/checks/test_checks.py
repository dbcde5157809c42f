"""The checker of aggregators: what it says of rules that keep the contract, that draw, refuse or can't run."""

import jax
import jax.numpy as jnp
import pytest
from by_leaf import mean_in_half, per_leaf

import fedjax_lite as fl
from fedjax_lite import aggregators, checks
from fedjax_lite.checks.aggregator_contract import REQUIRED
from fedjax_lite.checks.aggregator_properties import REPORTED

MEAN = aggregators.mean()


ORDER, NOBODY, HALF = "order of clients does not matter", "no clients give zero", "half precision loses nothing"
STATE, METRICS, FAR = "state keeps its kind", "metrics are float scalars", "withstands far-away messages"
GROUPS, SHAPE = "any grouping of clients", "shape and dtype of a message"
SHIFTED, SAME, SCALED = "moves along with the messages", "equal messages come back", "scales with the messages"


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
    report = checks.aggregator(rule, only=[*REPORTED, FAR])
    assert report.breakdown == breakdown, report
    assert {word: report.holds(property) == "yes" for word, property in SAID.items()} == said, report
    assert report.holds(SHIFTED) == report.holds(SAME) == "yes"


@pytest.mark.deep
def test_the_whole_table():
    report = checks.aggregator(MEAN, clients=5)
    assert report.ok and not report.broken and str(report).endswith("\nkeeps the contract"), report
    assert [row.property for row in report.rows] == [*REQUIRED, *REPORTED, FAR]


def test_only_some_properties_are_asked():
    assert [row.property for row in checks.aggregator(MEAN, only=[SAME, STATE]).rows] == [STATE, SAME]
    with pytest.raises(ValueError, match="only must name properties, got 'speed': there are order of clients does not matter, "):
        checks.aggregator(MEAN, only=["speed"])


@pytest.mark.deep
@pytest.mark.parametrize("clients, f", [(5, 2), (6, 2), (9, 4)])
def test_the_breakdown_of_the_median_follows_the_number_of_clients(clients, f):
    assert checks.aggregator(aggregators.median(), clients=clients, message=jnp.zeros(9), only=[FAR], seed=3).breakdown == f


def clipped_mean(most):
    """Each message scaled down to a norm; the aggregate can't be further from 0, whoever sends what."""

    def each(message, client):
        norm = jnp.sqrt(1e-12 + sum(jnp.sum(x**2) for x in jax.tree.leaves(message)))
        return jax.tree.map(lambda x: x * jnp.minimum(1, most / norm).astype(x.dtype), message), 1.0

    return aggregators.from_sum(each, lambda sums: jax.tree.map(lambda x: x.astype(jnp.float32) / jnp.maximum(sums[1], 1), sums[0]))


def test_a_bounded_rule_has_no_breakdown():
    report = checks.aggregator(clipped_mean(1.0), clients=5, only=[SHIFTED, SAME, SCALED, FAR])
    assert report.breakdown == 4 and report.holds(SHIFTED) == report.holds(SAME) == report.holds(SCALED) == "no"


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
    report = checks.aggregator(momentum(), only=[ORDER, STATE, METRICS, FAR])
    assert report.ok and report.breakdown == 0, report
    assert ("3 arrays", "norm") == tuple(row.evidence for row in report.rows if row.property in (STATE, METRICS))


def test_a_rule_that_draws_from_its_key():
    report = checks.aggregator(noisy(0.1), only=[ORDER, NOBODY, HALF, "depends on its key"])
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
    report = checks.aggregator(refusing(5), only=[HALF, "one client is its own aggregate"])
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


@pytest.mark.deep
def test_any_message():
    message = (jnp.zeros((2, 3, 2), jnp.bfloat16), [jnp.zeros(0), 1.0])
    assert checks.aggregator(aggregators.median(), clients=4, message=message, only=[ORDER, GROUPS, SHAPE]).ok
    few = checks.aggregator(aggregators.median(), clients=4, message=jnp.zeros(2), only=[ORDER, "inside the convex hull"])
    assert few.ok and few.holds("inside the convex hull") == "not applicable"


@pytest.mark.deep
def test_double_precision_is_asked_for_more(x64):
    """A sum in float32 keeps the contract in float32 alone."""
    short = per_leaf(lambda x, c: mean_in_half(x.astype(jnp.float32), c).astype(x.dtype))
    assert checks.aggregator(MEAN, only=[ORDER]).ok and not checks.aggregator(short, only=[ORDER]).ok
    with jax.enable_x64(False):
        assert checks.aggregator(short, only=[ORDER]).ok


def test_what_is_no_aggregator():
    with pytest.raises(Exception, match="call the function that makes one|aggregator"):
        checks.aggregator(aggregators.median)
    with pytest.raises(ValueError, match="at least 3, got 2"):
        checks.aggregator(MEAN, clients=2)
    with pytest.raises(ValueError, match="must hold numbers"):
        checks.aggregator(MEAN, message={})
