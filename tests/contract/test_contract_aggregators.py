"""Every aggregator of the contract's list keeps it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import (
    AGGREGATORS,
    COSTLY,
    FIXED_POINT,
    MORE_THAN_ONE,
    NOISE_OF_CLIENTS,
    NOISY,
    POPULATION,
    assert_close,
    contract_data,
    distributed,
    federate,
    median_of_means,
)
from grouping import grouped
from problems import SIZES, dealt, softmax_params

import fedjax_lite as fl
from fedjax_lite import aggregators
from fedjax_lite.engine.placement import everywhere, mesh_of

pytestmark = pytest.mark.usefixtures("x64")
each_aggregator, each_aggregator_name = grouped("aggregator", AGGREGATORS), grouped("name", list(AGGREGATORS))
each_exact_aggregator_name = grouped("name", [name for name in AGGREGATORS if name not in NOISY + NOISE_OF_CLIENTS])


def messages(clients, seed=0):
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.normal(size=(clients, 3, 2))), "b": jnp.asarray(rng.normal(size=(clients,)))}


def cohort(clients, weight=None):
    sizes = jnp.asarray(SIZES, jnp.int32)
    return fl.sampling.cohort(jax.random.key(0), sizes, jnp.arange(clients), weight)


@functools.cache
def compiled_aggregate(aggregator):
    def run(stack, cohort):
        state = aggregator.init(jax.tree.map(lambda x: x[0], stack))
        return aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(1))[0]

    return jax.jit(run)


def aggregate(aggregator, stack, cohort):
    return compiled_aggregate(aggregator)(stack, cohort)


def rows(stack, index):
    return jax.tree.map(lambda x: x[np.asarray(index)], stack)


@each_aggregator
def test_chunked_equals_whole(aggregator):
    @jax.jit
    def chunked(stack, cohort):
        state = aggregator.init(rows(stack, 0))
        parts = [aggregator.collect(rows(stack, i), rows(cohort, i), state) for i in ([0, 1, 2], [3], [4, 5, 6])]
        merged = jax.tree.map(lambda *leaves: sum(leaves) if aggregator.additive else jnp.concatenate(leaves), *parts)
        return aggregator.finish(merged, state, jax.random.key(1))[0]

    stack, all_clients = messages(POPULATION), cohort(POPULATION)
    assert_close(chunked(stack, all_clients), aggregate(aggregator, stack, all_clients))


@each_aggregator
def test_empty_slots_are_inert_whatever_they_hold(aggregator):
    stack, all_clients = messages(POPULATION), cohort(POPULATION)
    present = jnp.array([1, 0, 1, 1, 0, 1, 1], float)
    garbage = jax.tree.map(lambda x: jnp.where((present > 0).reshape((-1,) + (1,) * (x.ndim - 1)), x, jnp.nan), stack)
    some = np.flatnonzero(present)
    expected = aggregate(aggregator, rows(stack, some), rows(all_clients, some))
    assert_close(aggregate(aggregator, garbage, all_clients._replace(weight=present)), expected)


@each_aggregator_name
def test_no_clients_give_zero_or_noise(name):
    nobody = cohort(POPULATION, jnp.zeros(POPULATION))
    result = aggregate(AGGREGATORS[name], messages(POPULATION), nobody)
    if name in NOISY:
        assert all((x != 0).all() and np.isfinite(x).all() for x in jax.tree.leaves(result))
        return
    assert_close(result, {"w": jnp.zeros((3, 2)), "b": jnp.zeros(())})


@each_aggregator
def test_order_of_clients_does_not_matter(aggregator):
    stack, all_clients = messages(POPULATION), cohort(POPULATION)
    order = np.random.default_rng(3).permutation(POPULATION)
    assert_close(aggregate(aggregator, rows(stack, order), rows(all_clients, order)), aggregate(aggregator, stack, all_clients))


@each_exact_aggregator_name
def test_one_client_is_its_own_aggregate(name):
    aggregator, stack = AGGREGATORS[name], messages(1)
    if name in MORE_THAN_ONE:
        with pytest.raises(ValueError, match="needs n >= .* clients a round, and the cohort has 1: lower num_byzantine or sample more"):
            aggregate(aggregator, stack, cohort(1))
        return
    result = aggregate(aggregator, stack, cohort(1))
    if name == "sign_majority":
        result, stack = jax.tree.map(lambda x: x * 10, result), jax.tree.map(jnp.sign, stack)
    if name == "fltrust":  # there is nobody beside the server's own client
        stack = jax.tree.map(jnp.zeros_like, stack)
    if name == "dp_mean":  # its divisor is not who came
        result = jax.tree.map(lambda x: 4 * x, result)
    assert_close(result, rows(stack, 0), 2**-17 if name in FIXED_POINT else 1e-10)


@each_exact_aggregator_name
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_right_for_many_clients(name, dtype):
    """A thousand equal messages: their sum would drown in bfloat16, their total weight overflow float16."""
    clients = 70 if name in COSTLY else 1000
    ids = jnp.arange(clients) % (clients if name == "fltrust" else POPULATION)
    many = fl.sampling.cohort(jax.random.key(0), jnp.full(clients, 1000), ids)
    one = jax.tree.map(lambda x: x.astype(dtype), messages(1))
    result = aggregate(AGGREGATORS[name], jax.tree.map(lambda x: jnp.repeat(x, clients, axis=0), one), many)
    if name == "sign_majority":
        one = jax.tree.map(lambda x: jnp.sign(x) / 10, one)
    if name == "dp_mean":
        result = jax.tree.map(lambda x: x * 4 / clients, result)
    jax.tree.map(lambda x, m: np.testing.assert_allclose(np.asarray(x, float), np.asarray(m[0], float), rtol=1e-2), result, one)


@each_aggregator
def test_gradients_are_finite(aggregator):
    gradient = jax.grad(lambda stack: sum(jnp.sum(x**2) for x in jax.tree.leaves(aggregate(aggregator, stack, cohort(POPULATION)))))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient(messages(POPULATION))))


def test_the_median_of_means_of_the_readme():
    stack = messages(6)
    expected = np.median(np.asarray(stack["w"]).reshape(3, 2, 3, 2).mean(1), axis=0)
    np.testing.assert_allclose(aggregate(median_of_means(3), stack, cohort(6))["w"], expected, rtol=1e-6)


@each_aggregator_name
def test_aggregators_on_eight_devices_and_with_poisson_cohorts(name):
    """A round with slots that a Poisson cohort left empty, on eight devices and on one, is that of the clients present alone."""
    aggregator = distributed(getattr(aggregators, name), 32) if name in NOISE_OF_CLIENTS else AGGREGATORS[name]
    data, built = contract_data(), federate(aggregator=aggregator)
    state = built.init(softmax_params(), jax.random.key(0))
    with_empty = fl.sampling.poisson(0.6, capacity=POPULATION)(jax.random.key(2), data.size, jnp.int32(0))
    present = np.flatnonzero((np.asarray(with_empty.weight) > 0) & (np.asarray(with_empty.size) > 0))
    assert len(present) == 5
    expected = jax.jit(built.round)(state, data, rows(with_empty, present))
    assert_close(jax.jit(built.round)(state, data, with_empty), expected)
    with jax.set_mesh(mesh_of(jax.devices())):
        shared = jax.jit(lambda *operands: built.round(*operands))(everywhere(state), dealt(data, with_empty.id), everywhere(with_empty))
    assert_close(shared, expected)
