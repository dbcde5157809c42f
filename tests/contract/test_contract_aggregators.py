"""Every aggregator of the contract's list keeps it: what `fl.checks.aggregator` asks, in double precision; and on eight devices."""

import jax
import numpy as np
import pytest
from contract import AGGREGATORS, MORE_THAN_ONE, NOISE_OF_CLIENTS, NOISY, POPULATION, assert_close, contract_data, distributed, federate
from contract import median_of_means as groups_of
from grouping import grouped
from problems import dealt, softmax_params

import fedjax_lite as fl
from fedjax_lite import aggregators
from fedjax_lite.checks.required import REQUIRED
from fedjax_lite.engine.placement import everywhere, mesh_of

pytestmark = pytest.mark.usefixtures("x64")
# One for each way to add up, to sort, to weigh and to draw.
SIX = "mean", "weighted_mean", "median", "krum", "secure_mean", "dp_mean adaptive"
DEEPER = "half precision loses nothing", "jit equals eager", "called twice, the same", "vmap equals the loop", "nothing touches the host"
ALONE = "one client is its own aggregate"

each_aggregator = grouped("name", list(AGGREGATORS))
others_deep = grouped("name", list(AGGREGATORS), deep=[name for name in AGGREGATORS if name not in SIX])


def not_so(name, asked):
    """The properties that do not hold, or are not applicable, and what the report says of them."""
    report = fl.checks.aggregator(AGGREGATORS[name], clients=POPULATION, only=asked)
    return {row.property: row.holds for row in report.rows if row.holds != "yes"}


@each_aggregator
def test_keeps_the_contract(name):
    alone = "refused" if name in MORE_THAN_ONE else "no" if name in OTHERS_ALONE else "yes"
    expected = {"no clients give zero": "no"} if name in NOISY else {}
    asked = [ALONE, *(row for row in REQUIRED if row not in DEEPER)]
    assert not_so(name, asked) == expected | ({} if alone == "yes" else {ALONE: alone})


@others_deep
def test_keeps_the_rest_of_the_contract(name):
    drawn = {"half precision loses nothing": "not applicable"} if name in NOISY + NOISE_OF_CLIENTS else {}
    assert not_so(name, DEEPER) == drawn


# Of one client they make something else: a sign, a step, zero (there is nobody beside the server's own), a share, whole numbers, noise.
OTHERS_ALONE = "sign_majority", "rlr", "fltrust", "dp_mean", "secure_mean", "secure_mean ring", *NOISY, *NOISE_OF_CLIENTS


def test_the_median_of_means_of_the_readme():
    report = fl.checks.aggregator(groups_of(3), clients=6, only=["order of clients does not matter", "metrics are float scalars"])
    assert [row.holds for row in report.rows] == ["no", "yes"]
    stack = np.random.default_rng(0).normal(size=(6, 3, 2))
    cohort = fl.sampling.cohort(jax.random.key(0), np.ones(6, np.int32), np.arange(6))
    rule = groups_of(3)
    found = rule.finish(rule.collect({"w": jax.numpy.asarray(stack)}, cohort, ()), (), jax.random.key(0))[0]["w"]
    np.testing.assert_allclose(found, np.median(stack.reshape(3, 2, 3, 2).mean(1), axis=0), rtol=1e-6)


@others_deep
def test_aggregators_on_eight_devices_and_with_poisson_cohorts(name):
    """A round with slots that a Poisson cohort left empty, on eight devices and on one, is that of the clients present alone."""
    aggregator = distributed(getattr(aggregators, name), 32) if name in NOISE_OF_CLIENTS else AGGREGATORS[name]
    data, built = contract_data(), federate(aggregator=aggregator)
    state = jax.jit(built.init)(softmax_params(), jax.random.key(0))
    with_empty = jax.jit(fl.sampling.poisson(0.6, capacity=POPULATION))(jax.random.key(2), data.size, np.int32(0))
    present = np.flatnonzero((np.asarray(with_empty.weight) > 0) & (np.asarray(with_empty.size) > 0))
    assert len(present) == 5
    alone = jax.tree.map(lambda x: x[present], with_empty)
    expected = jax.jit(built.round)(state, data, alone)
    assert_close(jax.jit(built.round)(state, data, with_empty), expected)
    with jax.set_mesh(mesh_of(jax.devices())):
        shared = jax.jit(lambda *operands: built.round(*operands))(everywhere(state), dealt(data, with_empty.id), everywhere(with_empty))
    assert_close(shared, expected)
