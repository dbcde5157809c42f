"""Frozen leaves: what learns equals plain training with the others held fast, whatever the method, engine and number of devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grouping import tiered

import fedjax_lite as fl
from fedjax_lite.engine.placement import mesh_of
from fedjax_lite.models import WithStatistics, supervised

RNG = np.random.default_rng(0)
DATA = fl.FederatedData.from_clients(
    [{"x": RNG.normal(size=(n, 4)).astype(np.float32), "y": RNG.integers(0, 3, n)} for n in (5, 2, 9, 4)], classes=3
)
MODEL = fl.models.mlp((6,), classes=3)
PARAMS = MODEL.init(jax.random.key(0), DATA.example)
FROZEN = "Dense_0/.*"
OPTIONS = {"batches": fl.Batches(3, epochs=2), "population": 4}


def simulated(algorithm, params=PARAMS, rounds=2):
    run = jax.jit(lambda data, params, key: fl.simulate(algorithm, data, params, fl.sampling.everyone(), rounds=rounds, key=key))
    return run(DATA, params, jax.random.key(1))


def by_hand(make):
    """The same by gradients of 0: an optimizer that leaves the frozen leaves where they are."""
    return simulated(make(MODEL, fl.train_leaves(optax.sgd(0.3, momentum=0.9), [("Dense_1/.*", None)])))


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), a, b)


METHODS = {
    "fedavg": lambda model, optimizer, **engine: fl.algorithms.fedavg(supervised(model), optimizer, **OPTIONS, **engine),
    "ditto": lambda model, optimizer, **engine: fl.algorithms.ditto(supervised(model), optimizer, lam=0.1, **OPTIONS, **engine),
    "fedlc": lambda model, optimizer, **engine: fl.algorithms.fedlc(model, optimizer, classes=3, **OPTIONS, **engine),
    "fedper": lambda model, optimizer, **engine: fl.algorithms.fedper(
        supervised(model), optimizer, personal="Dense_1/bias", **OPTIONS, **engine
    ),
}


@tiered("name", METHODS, ["fedavg"], group="freeze")
def test_what_learns_is_as_if_the_others_had_no_gradient(name):
    frozen = fl.freeze(FROZEN, MODEL, PARAMS, lambda model: METHODS[name](model, optax.sgd(0.3, momentum=0.9)))
    (state, history), (plain, told) = simulated(frozen), by_hand(METHODS[name])
    reference = METHODS[name](MODEL, optax.sgd(0.3))
    close(frozen.params(state), reference.params(plain))
    close(history["loss"], told["loss"])
    assert jax.tree.map(jnp.shape, frozen.params(state)) == jax.tree.map(jnp.shape, PARAMS)
    assert (frozen.params(state)["Dense_0"]["kernel"] == PARAMS["Dense_0"]["kernel"]).all()
    if frozen.models:
        close(frozen.models(state), reference.models(plain))
        close(frozen.models(state, jnp.int32(2)), jax.tree.map(lambda x: x[2], reference.models(plain)))


@tiered("rule", ["mean", "private"], ["mean"], group="freeze")
def test_messages_states_and_noise_have_the_leaves_that_learn_alone(rule):
    private = rule == "private"

    def make(model):
        work = fl.sgd_work(supervised(model), optax.adam(0.1), keep_optimizer=not private)
        mean = fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=4) if private else fl.aggregators.mean()
        return fl.federate(work, mean, fl.optimizer_server(optax.adam(0.1)), **OPTIONS)

    algorithm = fl.freeze(FROZEN, MODEL, PARAMS, make)
    state, history = simulated(algorithm)
    assert history["uplink_bits"].tolist() == history["downlink_bits"].tolist() == [4 * 32 * 21] * 2
    shapes = {x.shape for x in jax.tree.leaves((state.server.inner, state.own, state.uplink, state.aggregator))}
    assert not shapes & {(4, 6), (4, 4, 6)} and (6, 3) in shapes
    assert (algorithm.privacy is not None) == private
    assert (algorithm.params(state)["Dense_0"]["bias"] == PARAMS["Dense_0"]["bias"]).all()


@pytest.mark.deep
@pytest.mark.parametrize("engine", ["sequential", "padded", "two devices"])
def test_engines_and_devices(engine):
    def made(**options):
        return fl.freeze(FROZEN, MODEL, PARAMS, lambda model: METHODS["fedavg"](model, optax.sgd(0.3), **options))

    usual = made()
    wanted = usual.params(simulated(usual)[0])
    if engine == "two devices":
        with jax.set_mesh(mesh_of(jax.devices()[:2])):
            other = made()
            result = fl.run(other, DATA, PARAMS, fl.sampling.everyone(), rounds=2, key=jax.random.key(1), progress=False)
        return close(jax.device_get(result.params), wanted)
    other = made(engine=getattr(fl, engine)())
    return close(other.params(simulated(other)[0]), wanted)


def test_frozen_leaves_are_an_operand_and_no_constant():
    make = lambda model: METHODS["fedavg"](model, optax.sgd(0.3))  # noqa: E731
    algorithm = fl.freeze(FROZEN, MODEL, PARAMS, make)
    state = jax.eval_shape(algorithm.init, PARAMS, jax.random.key(0))
    cohort = jax.eval_shape(lambda key: fl.sampling.everyone()(key, DATA.size, 0), jax.random.key(0))
    jaxpr = jax.make_jaxpr(algorithm.round)(state, DATA, cohort)
    assert not [x for x in jaxpr.consts if np.size(x) > 8]


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(6)(x))
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.relu(x)))


@pytest.mark.deep
def test_running_statistics_that_are_frozen_stay_and_the_others_are_averaged():
    model = fl.models.from_linen(Normed())
    params = model.init(jax.random.key(0), DATA.example)
    make = lambda model: METHODS["fedavg"](model, optax.sgd(0.3))  # noqa: E731
    algorithm = fl.freeze(r"statistics/BatchNorm_0/.*|params/Dense_0/.*", model, params, make)
    after = algorithm.params(simulated(algorithm, params)[0])
    assert isinstance(after, WithStatistics)
    same = jax.tree.map(lambda x, y: bool((x == y).all()), after, params)
    assert all(jax.tree.leaves((same.statistics["BatchNorm_0"], same.params["Dense_0"])))
    assert not any(jax.tree.leaves((same.statistics["BatchNorm_1"], same.params["Dense_1"], same.params["BatchNorm_0"])))


@pytest.mark.deep
def test_a_run_evaluates_the_whole_model_and_writes_it(tmp_path):
    algorithm = fl.freeze(FROZEN, MODEL, PARAMS, lambda model: METHODS["fedlc"](model, optax.sgd(0.3)))
    options = {"rounds": 2, "key": jax.random.key(1), "progress": False, "classification": True}
    result = fl.run(algorithm, DATA, PARAMS, fl.sampling.everyone(), loss_fn=algorithm.loss_fn, test=DATA, out=tmp_path / "run", **options)
    loaded = fl.load_params(tmp_path / "run", PARAMS)
    close(loaded, result.params)
    losses, _ = supervised(MODEL)(loaded, DATA.examples, None)
    assert result.history[-1]["test_loss"] == pytest.approx(float(losses.mean()), rel=1e-4)
    again = fl.run(algorithm, DATA, PARAMS, fl.sampling.everyone(), out=tmp_path / "run", resume=True, **options | {"rounds": 3},
                   loss_fn=algorithm.loss_fn, test=DATA)  # fmt: skip
    assert len(again.history) == 3


def test_refused():
    make = lambda model: METHODS["fedavg"](model, optax.sgd(0.3))  # noqa: E731
    for rule in ("Conv_0/.*", ".*"):
        with pytest.raises(ValueError, match="freeze: frozen=.* chooses (no|every) leaf"):
            fl.freeze(rule, MODEL, PARAMS, make)
    with pytest.raises(TypeError, match="freeze: make must make a fl.Algorithm of the model that it is given, and makes 3"):
        fl.freeze(FROZEN, MODEL, PARAMS, lambda model: 3)
    rod = lambda model: fl.algorithms.fedrod(model, optax.sgd(0.1), classes=3, personal="Dense_1/.*", **OPTIONS)  # noqa: E731
    with pytest.raises(ValueError, match="freeze: the method's global model is TwoHeads.*take a method whose clients and server have one"):
        fl.freeze("Dense_0/bias", MODEL, PARAMS, rod)
    of_families = {"example": DATA.example, "batches": fl.Batches(3)}
    prototypes = lambda model: fl.algorithms.fedproto([model], [4], optax.sgd(0.1), 3, **of_families)  # noqa: E731
    with pytest.raises(ValueError, match="freeze: the method does not start from the leaves that learn of one model: take a method whose"):
        fl.freeze(FROZEN, MODEL, PARAMS, prototypes)
