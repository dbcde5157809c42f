"""The checker of algorithms: what keeps the contract passes, and every way to break it is caught by its own row."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite import checks
from fedjax_lite.checks.algorithm_contract import PROMISED

SIZES = 3, 1, 2, 4, 2
DATA = fl.FederatedData.from_clients([{"x": np.arange(n) + float(k)} for k, n in enumerate(SIZES)])


def quadratic(engine, rate=0.1):
    """SGD on (params - x)^2, with a server that keeps a momentum."""
    return fl.federate(
        fl.sgd_work(lambda params, batch, key: (params - batch["x"]) ** 2, optax.sgd(rate)),
        fl.aggregators.weighted_mean(),
        fl.optimizer_server(optax.sgd(1.0, momentum=0.5)),
        batches=fl.Batches(2, shuffle=False),
        population=len(SIZES),
        engine=engine,
    )


def after(change):
    """The algorithm with (state, metrics) of a round changed: `change(before, cohort, state, metrics)`."""

    def make(engine, *rate):
        built = quadratic(engine, *rate)
        return built._replace(round=lambda state, data, cohort: change(state, cohort, *built.round(state, data, cohort)))

    return make


def louder(metrics, by):
    return metrics | {"loss": metrics["loss"] + by}


def moved(state, by):
    return state._replace(server=jax.tree.map(lambda x: x + jnp.asarray(by, x.dtype), state.server))


def with_counter(engine, *rate):
    """Another rate each time that it is made."""
    return quadratic(engine, next(RATES))


RATES, CALLS = itertools.cycle([0.1, 0.2]), itertools.count()


@jax.custom_batching.custom_vmap
def doubled_when_mapped(x):
    return x


@doubled_when_mapped.def_vmap
def _(size, batched, x):
    return 2 * x, batched[0]


def prints(before, cohort, state, metrics):
    jax.debug.callback(lambda x: None, metrics["loss"])
    return state, metrics


def traced(x):
    return isinstance(x, jax.core.Tracer)


# what is wrong -> the property that must say so, and what makes the algorithm.
BROKEN = {
    "NaN for a client": (
        "order of clients does not matter",
        after(lambda b, c, s, m: (s, louder(m, jnp.where(c.id[0] == 1, jnp.nan, 0.0)))),
    ),
    "the first slot is told apart": ("order of clients does not matter", after(lambda b, c, s, m: (s, louder(m, c.id[0] * 1e-2)))),
    "empty slots are counted": ("empty slots do not matter", after(lambda b, c, s, m: (s, louder(m, len(c.weight))))),
    "an empty slot's id matters": ("empty slots do not matter", after(lambda b, c, s, m: (s, louder(m, jnp.sum(c.id) * 1e-2)))),
    "drifts without clients": ("an empty cohort changes nothing", after(lambda b, c, s, m: (moved(s, 1e-3), m))),
    "counts who did not come": ("an empty cohort changes nothing", after(lambda b, c, s, m: (s, m | {"clients": m["clients"] + 1}))),
    "engines that differ": ("engines agree", with_counter),
    "a state that hardens": (
        "other cohorts do not recompile",
        lambda *args: after(lambda b, c, s, m: (s._replace(aggregator=s.aggregator + jnp.ones(())), m))(*args)._replace(
            init=lambda params, key: quadratic(None).init(params, key)._replace(aggregator=jnp.asarray(1.0, jnp.bfloat16))
        ),
    ),
    "a state that grows": ("state keeps its kind", after(lambda b, c, s, m: (s._replace(aggregator=(s.aggregator, s.round)), m))),
    "a state of another dtype": ("state keeps its kind", after(lambda b, c, s, m: (s._replace(round=s.round + 1.0), m))),
    "a metric that is a vector": ("metrics are float scalars", after(lambda b, c, s, m: (s, m | {"norms": jnp.zeros(3)}))),
    "a metric that is a count": ("metrics are float scalars", after(lambda b, c, s, m: (s, m | {"dropped": jnp.int32(3)}))),
    "another value when compiled": ("jit equals eager", after(lambda b, c, s, m: (s, louder(m, traced(b.round))))),
    "another value when mapped": ("vmap equals the loop", after(lambda b, c, s, m: (s, m | {"loss": doubled_when_mapped(m["loss"])}))),
    "a hyperparameter that must be a number": ("vmap equals the loop", lambda engine, rate=0.1: quadratic(engine, float(rate))),
    "counts its traces": ("pieces equal the whole", after(lambda b, c, s, m: (s, louder(m, next(CALLS))))),
    "prints": ("nothing touches the host", after(prints)),
    "knows how many devices there are": (
        "several devices equal one",
        after(lambda b, c, s, m: (s, louder(m, jax.sharding.get_abstract_mesh().size))),
    ),
}


# A second way to break a property, or many operations.
DEEPER = (
    "another value when compiled",
    "another value when mapped",
    "knows how many devices there are",
    "the first slot is told apart",
    "an empty slot's id matters",
    "counts who did not come",
    "a metric that is a count",
    "a state of another dtype",
)


@pytest.mark.parametrize("wrong", [pytest.param(wrong, marks=pytest.mark.deep if wrong in DEEPER else ()) for wrong in BROKEN])
def test_a_broken_algorithm_is_caught(wrong):
    property, make = BROKEN[wrong]
    report = checks.algorithm(make, DATA, jnp.zeros(()), values=(0.1, 0.2), only=[property])
    assert report.holds(property) == "no", report
    assert not report.ok and property in str(report).splitlines()[-1]


def test_every_property_has_an_algorithm_that_breaks_it():
    assert set(PROMISED) == {property for property, _ in BROKEN.values()}


@pytest.mark.deep
def test_an_algorithm_that_keeps_the_contract():
    report = checks.algorithm(quadratic, DATA, jnp.zeros(()), clients=4)
    assert [(row.holds, row.required) for row in report.rows] == [("yes", True)] * len(PROMISED), report
    assert report.ok and report.clients == 4 and report.breakdown is None and str(report).endswith("\nkeeps the contract")


def test_an_algorithm_whose_engine_is_chosen():
    report = checks.algorithm(quadratic(fl.sequential()), DATA, jnp.zeros(()), only=["engines agree", "empty slots do not matter"])
    assert [row.holds for row in report.rows] == ["yes", "not applicable"] and report.ok


def test_what_can_not_be_tried():
    with pytest.raises(Exception, match="must be a function of the engine, or a fl.Algorithm|make"):
        checks.algorithm("fedavg", DATA, jnp.zeros(()))
    with pytest.raises(Exception, match="data must be a FederatedData, got a dict|data"):
        checks.algorithm(quadratic, {}, jnp.zeros(()))
    with pytest.raises(ValueError, match="needs 3 clients or more, got clients=2 of 5 with examples: give it more of either"):
        checks.algorithm(quadratic, DATA, jnp.zeros(()), clients=2)
    report = checks.algorithm(lambda engine: quadratic(engine)._replace(init=None), DATA, jnp.zeros(()))
    assert {row.holds for row in report.rows} == {"no"} and report.rows[0].evidence.startswith("TypeError: ")
