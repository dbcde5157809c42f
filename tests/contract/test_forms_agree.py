"""Every aggregator and six kinds of algorithm keep the contract in an accelerator's forms too, and equal a CPU's, on a CPU."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract.groups import ALGORITHMS
from contract.population import POPULATION, assert_close, contract_data, plain
from contract.rules import AGGREGATORS, ONE_OF_EACH, SECURE
from contract.works import WORKS, federate
from grouping import FORMS, tiered
from problems import SIZES, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import forms
from fedjax_lite.aggregators.sums import sum_rows
from fedjax_lite.models.convolution import matmul_conv
from fedjax_lite.models.examples import example_by_example
from fedjax_lite.privacy.record_level import record_level

DEAR = {"ddgauss", "distilled"}  # to compile: in the slow tests


def in_both(fn, *operands):
    """A function's results in a CPU's forms and in an accelerator's."""
    results = []
    for name in ("cpu", "accelerator"):
        with forms.use(name):
            results.append(jax.tree.map(plain, jax.jit(lambda *operands: fn(*operands))(*operands)))
    return results


def stacked(*cases):
    return jax.tree.map(lambda *x: np.stack(x), *cases)


# Aggregators: each on the same messages, on them in another order, with slots that are empty and hold NaN, and with none but such slots.
ORDER, PRESENT = np.array([4, 2, 6, 0, 5, 1, 3]), np.array([1, 0, 1, 1, 0, 1, 1], bool)
NOBODY = np.zeros(POPULATION, bool)


# A CPU takes coordinates in chunks of 5,000, or of 20,000 where each is taken alone: enough of them for several chunks, the last not full.
COORDINATES = {"median": 40_003} | dict.fromkeys(SECURE, 7)  # these draw for each, and have no chunks


@pytest.mark.usefixtures("x64")
@tiered("name", AGGREGATORS, ordinary=("multi_krum", "nnm", "arc"), deep=set(ONE_OF_EACH) - DEAR, group=FORMS)
def test_aggregators_equal_the_cpu_s(name):
    aggregator, rng = AGGREGATORS[name], np.random.default_rng(0)
    messages = {"w": rng.normal(size=(POPULATION, COORDINATES.get(name, 10_003))), "b": rng.normal(size=(POPULATION,))}
    ids, everyone = np.arange(POPULATION, dtype=np.int32), ~NOBODY
    spoilt = jax.tree.map(lambda x: np.where(PRESENT.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan), messages)

    def aggregate(case):
        stack, ids, present = case
        cohort = fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES, jnp.int32), ids, present.astype(float))
        state = aggregator.init(jax.tree.map(lambda x: x[0], stack))
        return aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(1))

    cases = stacked(
        (messages, ids, everyone),
        (jax.tree.map(lambda x: x[ORDER], messages), ids[ORDER], everyone),
        (spoilt, ids, PRESENT),
        (spoilt, ids, NOBODY),
    )
    here, there = in_both(lambda cases: jax.lax.map(aggregate, cases), cases)
    assert_close(there, here)
    aggregates = there[0]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(aggregates))
    assert_close(*(jax.tree.map(lambda x, i=i: x[i], aggregates) for i in (1, 0)))


@pytest.mark.parametrize("dtype, sums", [(jnp.bfloat16, "float32"), (jnp.float16, "float32"), (np.int8, "int32"), (bool, "int32")])
def test_short_numbers_are_summed_in_32_bits(dtype, sums):
    """A thousand equal numbers, which drown in a sum of theirs, or overflow; and the sums of a part are not shortened again."""
    rows = np.full((1000, 2), 1.23).astype(dtype)
    for total in in_both(lambda rows: sum_rows(lambda row: row, jnp.ones(1000, bool), rows), rows):
        assert total.dtype == sums
        np.testing.assert_allclose(total, 1000 * rows[0].astype(float), rtol=1e-6)


# Algorithms: a round of five clients, of the same in another order, and of none.
COHORTS = [((2, 0, 6, 5, 1), (1, 1, 1, 1, 0)), ((6, 1, 5, 2, 0), (1, 0, 1, 1, 1)), ((2, 0, 6, 5, 1), (0, 0, 0, 0, 0))]


def rounds(built, data, params, key):
    """The state at the start, and what a round of each cohort makes of it."""
    state = built.init(params, key)

    def one(cohort):
        return built.round(state, data, fl.sampling.cohort(fl.round_key(state), data.size, *cohort))

    return state, jax.lax.map(one, stacked(*((np.array(ids, np.int32), np.array(weight, float)) for ids, weight in COHORTS)))


def softmax(build):
    """On the contract's data, with the default engine, whose lanes a CPU and an accelerator choose."""

    def run(data, params, key):
        return rounds(build(None), data, params, key)

    return run, contract_data(), np.asarray(softmax_params())


def study():
    """Over seeds and rates, whose lanes train all at once."""

    def run(data, params, key, rate):
        return rounds(federate(WORKS["momentum"](rate), batches=fl.Batches(4)), data, params, key)

    def runs(data, params, key):
        over_rates = jax.vmap(run, (None, None, None, 0), -1)
        return jax.vmap(over_rates, (None, None, 0, None), -1)(data, params, jax.random.split(key, 2), jnp.array([0.05, 0.2]))

    return runs, contract_data(), np.asarray(softmax_params())


def private(engine):
    """For each example of a client, and for each client."""
    work = fl.sgd_work(softmax_loss, optax.sgd(0.1), gradients=record_level(1.0, 0.5, 4, microbatch=3))
    return federate(work, AGGREGATORS["dp_mean adaptive"], engine=engine)


class _CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, param_dtype=float)(example_by_example(self.features, x).reshape(len(x), -1))

    def features(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), conv_general_dilated=matmul_conv, param_dtype=float)(x))
        return fl.models.max_pool(x, (2, 2), (2, 2))


def convolutions():
    rng, model = np.random.default_rng(0), fl.models.from_linen(_CNN())
    clients = [{"x": rng.normal(size=(n, 4, 6, 2)), "y": rng.integers(0, 3, n)} for n in (5, 1, 12, 3, 8, 0, 7)]
    data = fl.FederatedData.from_clients(clients, allow_empty=True)
    work = fl.sgd_work(fl.models.supervised(model), optax.sgd(0.1))
    shapes = jax.eval_shape(model.init, jax.random.key(0), data.example)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape) / 3, shapes)
    return lambda data, params, key: rounds(federate(work), data, params, key), data, params


KINDS = {
    "plain": lambda: softmax(ALGORITHMS["work momentum"]),
    "private": lambda: softmax(private),
    "uplink": lambda: softmax(ALGORITHMS["uplink top_k"]),
    "distilled": lambda: softmax(ALGORITHMS["distilled"]),
    "study": study,
    "convolutions": convolutions,
}


@pytest.mark.usefixtures("x64")
@tiered("kind", KINDS, ordinary=("plain",), deep=set(KINDS) - DEAR, group=FORMS)
def test_algorithms_equal_the_cpu_s(kind):
    run, data, params = KINDS[kind]()
    here, there = in_both(lambda data, params: run(data, params, jax.random.key(0)), data, params)
    assert_close(there, here)
    start, (after, metrics) = there
    first, second, third = (jax.tree.map(lambda x, i=i: x[i], after) for i in range(3))
    assert_close(second, first)
    assert np.abs(jax.tree.leaves(first.server)[0] - jax.tree.leaves(start.server)[0]).max() > 1e-3
    if kind != "private":  # which adds noise for nobody too
        assert_close(third._replace(round=start.round), start, 0)
    assert (metrics["clients"][2] == 0).all() and all(np.isfinite(x[:2]).all() for x in metrics.values())
