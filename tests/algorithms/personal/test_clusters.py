"""An aggregator for each cluster is that aggregator on the cluster's messages alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.algorithms.personal.clusters import by_cluster

pytestmark = pytest.mark.usefixtures("x64")
CLUSTER = np.array([2, 0, 0, 2, 0, 0, 0])  # of seven slots; nobody is in 1, an empty slot in 0
WEIGHT = np.array([1.0, 1, 1, 1, 1, 0, 1])
RULES = {
    "weighted_mean": fl.aggregators.weighted_mean(),
    "median": fl.aggregators.median(),
    "centered_clipping": fl.aggregators.centered_clipping(radius=1.0),  # which keeps its aggregate
    "krum": fl.aggregators.krum(num_byzantine=0),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "centered_clipping" else pytest.mark.deep) for name in RULES])
def test_it_is_the_rule_on_the_members_alone(name):
    inner, rng = RULES[name], np.random.default_rng(0)
    rule, weight = by_cluster("ifca", inner, 3), jnp.asarray(WEIGHT)
    cohort = fl.sampling.cohort(jax.random.key(0), jnp.arange(3, 10), jnp.arange(7), weight)
    messages = {"a": rng.normal(size=(7, 4)), "b": rng.normal(size=7)}
    messages["b"][[5, 6]] = np.nan  # of the empty slot, and of one that is dropped
    messages = jax.tree.map(jnp.asarray, messages)
    one = jax.tree.map(lambda x: x[0], messages)
    state = rule.init({"params": one, "cluster": 0})
    alone = [inner.init(one)] * 3

    @jax.jit
    def by_clusters(state):
        part = rule.collect({"params": messages, "cluster": jnp.asarray(CLUSTER)}, cohort, state)
        return rule.finish(part, state, jax.random.key(1))

    @jax.jit
    def of_one(c, state):
        mine = cohort._replace(weight=jnp.where(CLUSTER == c, cohort.weight, 0))
        return inner.finish(inner.collect(messages, mine, state), state, jax.random.key(2))

    for _ in range(2):
        (found, clients), after, told = by_clusters(state)
        for c in range(3):
            expected, kept, metrics = of_one(c, alone[c])
            jax.tree.map(lambda x, y, c=c: np.testing.assert_allclose(x[c], y, rtol=1e-12), found, expected)
            alone[c] = kept if c != 1 else alone[c]
            assert {f"{name}_{c}" for name in metrics if name != "non_finite"} <= told.keys()
        jax.tree.map(lambda x, *each: np.testing.assert_allclose(x, np.stack(each), rtol=1e-12), after, *alone)
        assert clients.tolist() == [3, 0, 2] and told["non_finite"] == 1
        state = after


def test_bits_are_those_of_the_rule_and_of_the_number():
    inner = fl.aggregators.mean()._replace(bits=lambda message: 10)
    assert by_cluster("ifca", inner, 3).bits({"params": jnp.zeros(4), "cluster": jnp.int32(1)}) == 42
