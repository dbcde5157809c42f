"""What a clock asks of clients under methods that wrap others, beside baselines, and of samplers inside it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.sampling.check import check_sampler
from fedjax_lite.sampling.draw import demand_of_all, draw, drawn_by, ready

N, KEY = len(SIZES), jax.random.key(0)
DEVICES = fl.clock.lognormal(N, steps=1.0, sigma=0.5, download=100.0, upload=50.0)


def averaging(model=None, **more):
    loss_fn = softmax_loss if model is None else fl.models.supervised(model)
    return fl.algorithms.fedavg(loss_fn, optax.sgd(0.1), **{"batches": fl.Batches(4, before=1), "population": N} | more)


def asked(algorithm, params):
    return demand_of_all(algorithm, jax.eval_shape(algorithm.init, params, KEY), KEY, np.array(SIZES))


def test_both_parts_of_a_round_in_turn_are_asked_for():
    """Who has little time is cut in the second; steps of the first are as sure as passes."""
    first, then = averaging(batches=fl.Batches(None, steps=3)), averaging(batches=fl.Batches(4, epochs=2, before=1))
    one, two, both = (asked(each, softmax_params()) for each in (first, then, fl.in_turn(first, then)))
    for name in ("steps", "received", "sent"):
        assert getattr(both, name).tolist() == (getattr(one, name) + getattr(two, name)).tolist()
    assert both.passes.tolist() == (one.steps + two.passes).tolist()
    assert both.steps.tolist() == [3 + 3 * -(-n // 4) if n else 0 for n in SIZES]


def test_frozen_leaves_are_not_sent():
    model = fl.models.mlp((8,), classes=3)
    params = model.init(KEY, {"x": jnp.zeros(5)})
    whole, frozen = averaging(model), fl.freeze("Dense_0/.*", model, params, averaging)
    assert set(asked(whole, params).sent.tolist()) == {32 * (48 + 27)} and set(asked(frozen, params).sent.tolist()) == {32 * 27}
    table = fl.clock.arrivals(
        fl.freeze("Dense_0/.*", model, params, lambda m: fl.algorithms.fedbuff(fl.models.supervised(m), optax.sgd(0.1), **FEW)),
        jnp.array(SIZES), params, DEVICES, concurrency=3, rounds=2,
    )  # fmt: skip
    assert table.ids.shape == (2, 2)


FEW = {"batches": fl.Batches(4), "population": N, "buffer": 2}


def test_cohorts_of_other_algorithms_are_those_of_the_run():
    """Though a baseline sends nothing, and one that is trained centrally has no clients at all."""
    sampler, run, sizes = fl.clock.timed(fl.sampling.uniform(3), DEVICES, deadline=6.0), averaging(), jnp.array(SIZES)
    shapes = jax.eval_shape(run.init, softmax_params(), KEY)
    alone = fl.baselines.local_only(softmax_loss, optax.sgd(0.1), batches=fl.Batches(4), population=N)
    together = fl.baselines.centralised(softmax_loss, optax.sgd(0.1), batches=fl.Batches(4))
    found = []
    for algorithm, how in ((run, sampler), (alone, drawn_by(sampler, run, shapes)), (together, drawn_by(sampler, run, shapes))):
        first = jax.eval_shape(lambda algorithm=algorithm: algorithm.init(softmax_params(), KEY))._replace(own=(), uplink=())
        first = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first._replace(key=()))._replace(key=KEY)
        cohort, state = jax.jit(lambda state, how=how, algorithm=algorithm: draw(how, algorithm, ready(how, state, sizes), sizes))(first)
        found.append([cohort.weight.tolist(), cohort.steps.tolist(), float(state.sampling.time.seconds)])
    assert found[0] == found[1] == found[2] and 0 < sum(found[0][0]) < 3
    assert drawn_by(fl.sampling.uniform(3), run, shapes) is not None


@pytest.mark.deep
def test_a_run_under_a_clock_has_baselines():
    central = fl.baselines.centralised(softmax_loss, optax.sgd(0.1), batches=fl.Batches(4, before=1))
    given = {"rounds": 1, "key": KEY, "loss_fn": softmax_loss, "progress": False, "baselines": {"central": central}}
    sampler = fl.clock.timed(fl.sampling.uniform(3), DEVICES)
    result = fl.run(averaging(engine=fl.sequential()), softmax_data(), softmax_params(), sampler, **given)
    assert result.baselines["central"]["train_loss"] > 0


SAMPLERS = {
    "weight": (lambda key, sizes, round: fl.sampling.cohort(key, sizes, jnp.arange(2), jnp.array([1.0, -1.0])), "has the weight -1"),
    "twice": (lambda key, sizes, round: fl.sampling.cohort(key, sizes, jnp.zeros(2, int)), "client 0 is in 2 slots"),
    "ids": (lambda key, sizes, round: jnp.arange(2), "sampler must return a cohort"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_of_ones_own_is_checked_inside_a_clock(name):
    sampler, message = SAMPLERS[name]
    with pytest.raises((ValueError, TypeError), match=message):
        check_sampler(fl.clock.timed(sampler, DEVICES), KEY, np.array(SIZES))


def test_a_law_that_does_not_fit_the_population_is_refused_without_a_run_too():
    sampler = fl.clock.timed(fl.sampling.uniform(2), DEVICES, availability=fl.availability.trace([(0, 1, 3)]))
    state = ready(sampler, averaging().init(softmax_params(), KEY), jnp.array(SIZES))
    with pytest.raises(ValueError, match="trace: no interval lets client 1 take part"):
        draw(sampler, averaging(), state, jnp.array(SIZES))


def test_the_memory_of_another_sampler_is_refused():
    oort, clock = fl.sampling.oort(softmax_loss, clients=2), fl.clock.timed(fl.sampling.uniform(2), DEVICES)
    chosen = fl.sampling.power_of_choice(softmax_loss, clients=2, candidates=3)
    state = ready(clock, averaging().init(softmax_params(), KEY), jnp.array(SIZES))
    assert ready(clock, state, jnp.array(SIZES)) is state
    with pytest.raises(ValueError, match=r"the memory of another sampler, Memory\(.*, and this one remembers Watched\(memory=Oort"):
        ready(oort, state, jnp.array(SIZES))
    state = ready(chosen, averaging().init(softmax_params(), KEY), jnp.array(SIZES))
    with pytest.raises(ValueError, match="go on with the sampler that the run began with"):
        ready(oort, state, jnp.array(SIZES))
    with pytest.raises(TypeError, match="nor be called by hand: .* fl.simulate"):
        clock(KEY, jnp.array(SIZES), 0)
