"""Running statistics: against a loop over flax's own layers by hand, and a closed form that every method must keep."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import fedjax_lite as fl
from fedjax_lite.models import WithStatistics, from_linen, from_nnx

SIZES = 5, 7, 4
RNG = np.random.default_rng(0)
CLIENTS = [{"x": RNG.normal(k, 1 + k, (n, 4)).astype(np.float32), "y": RNG.integers(0, 3, n)} for k, n in enumerate(SIZES)]
DATA = fl.FederatedData.from_clients(CLIENTS)


class Net(nn.Module):
    """Statistics of the examples themselves: no parameter changes them."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))


class NetOfNnx(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(0.0, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x, real=None):
        return self.out(self.drop(self.norm(x, mask=None if real is None else real[:, None])))


def model_and_params(statistics="averaged"):
    model = from_linen(Net(), head=("Dense_0", nn.Dense(3)), statistics=statistics)
    return model, model.init(jax.random.key(0), DATA.example)


def after(algorithm, params, rounds=1):
    state, _ = fl.simulate(algorithm, DATA, params, fl.sampling.everyone(), rounds=rounds, key=jax.random.key(0))
    return state


def close(ours, theirs, **more):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, **more), ours, theirs)


@functools.partial(jax.jit, static_argnums=0)
def step_by_hand(optimizer, leaves, running, state, x, y):
    """Flax's layers on a batch without copies; the loss written out."""

    def loss(leaves):
        logits, changed = Net().apply({"params": leaves, "batch_stats": running}, x, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), changed["batch_stats"]

    gradient, running = jax.grad(loss, has_aux=True)(leaves)
    updates, state = optimizer.update(gradient, state, leaves)
    return optax.apply_updates(leaves, updates), running, state


def trained_by_hand(params, client, batch, epochs, optimizer):
    """Some epochs, the last batch of each short."""
    (leaves, running), state = params, optimizer.init(params.params)
    for first in [*range(0, len(client["y"]), batch)] * epochs:
        part = slice(first, first + batch)
        leaves, running, state = step_by_hand(optimizer, leaves, running, state, client["x"][part], client["y"][part])
    return WithStatistics(leaves, running)


def test_a_round_is_flaxs_own_layers_in_a_loop_with_short_batches_and_the_average():
    """Momentum and weight decay are not the statistics'; 5, 7 and 4 examples in batches of 3 are short in the end."""
    model, params = model_and_params()
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    given = {"batches": fl.Batches(3, epochs=2, shuffle=False), "population": 3}
    state = after(fl.algorithms.fedavg(fl.models.supervised(model), optimizer, **given), params)
    each = [trained_by_hand(params, client, 3, 2, optimizer) for client in CLIENTS]
    close(state.server.params, jax.tree.map(lambda *x: sum(n * one for n, one in zip(SIZES, x, strict=True)) / sum(SIZES), *each))


def expected_statistics(weights, rounds, steps=3):
    """What statistics of the examples themselves become: an average over clients of moving averages."""
    mean, variance, kept = np.zeros(4), np.ones(4), 0.9**steps
    share = np.asarray(weights) / sum(weights)
    for _ in range(rounds):
        mean = sum(w * (kept * mean + (1 - kept) * one["x"].mean(0)) for w, one in zip(share, CLIENTS, strict=True))
        variance = sum(w * (kept * variance + (1 - kept) * one["x"].var(0)) for w, one in zip(share, CLIENTS, strict=True))
    return {"mean": mean, "var": variance}


SGD, UNIFORM = (optax.sgd(0.1),), (1, 1, 1)
METHODS = {  # name -> arguments, and by what clients are weighed; of one method of each kind of server, and each kind of memory
    "fedadam": (SGD, {"server_learning_rate": 0.01}, SIZES), "feddyn": ((), {"learning_rate": 0.1, "alpha": 0.1}, UNIFORM),
    "fedavgm": (SGD, {}, SIZES),
    "fedprox": (SGD, {"mu": 0.1}, SIZES), "scaffold": ((), {"learning_rate": 0.1}, UNIFORM),
    "fednova": ((), {"learning_rate": 0.1}, SIZES), "fedcm": ((), {"learning_rate": 0.1, "alpha": 0.1}, UNIFORM),
    "fedsam": (SGD, {"rho": 0.1}, SIZES),
    "fedspeed": ((), {"learning_rate": 0.1}, UNIFORM), "fedadmm": ((), {"learning_rate": 0.1, "rho": 0.1}, UNIFORM),
    "mime": ((), {"learning_rate": 0.1, "beta": 0.9}, SIZES), "fedlc": (SGD, {"classes": 3}, SIZES), "diloco": (SGD, {}, UNIFORM),
    "scaffnew": ((), {"learning_rate": 0.1, "p": 0.3}, UNIFORM), "ditto": (SGD, {"lam": 0.1}, SIZES),
    "pfedme": ((), {"learning_rate": 0.1, "lam": 1.0, "inner_rate": 0.1, "inner_steps": 2}, UNIFORM),
}  # fmt: skip


def built(name, model):
    arguments, own, _ = METHODS[name]
    given = {"batches": fl.Batches(None, steps=3, before=int(name in ("mime", "fedlc"))), "population": 3} | own
    return getattr(fl.algorithms, name)(model if name == "fedlc" else fl.models.supervised(model), *arguments, **given)


@pytest.mark.parametrize("name", [name if name == "feddyn" else pytest.param(name, marks=pytest.mark.deep) for name in METHODS])
def test_statistics_are_averaged_whatever_the_method_does_to_the_other_leaves(name):
    model, params = model_and_params()
    algorithm = built(name, model)
    close(algorithm.params(after(algorithm, params, 3)).statistics["BatchNorm_0"], expected_statistics(METHODS[name][2], 3))


@pytest.mark.deep
def test_fedbn_of_one_client_is_plain_training_and_others_keep_their_own():
    model, params = model_and_params()
    given = {"batches": fl.Batches(3, epochs=2, shuffle=False)}
    alone = fl.algorithms.fedbn(fl.models.supervised(model), *SGD, **given, population=1)
    one = fl.FederatedData.from_clients(CLIENTS[:1])
    state, _ = fl.simulate(alone, one, params, fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    close(jax.tree.map(lambda x: x[0], alone.models(state)), trained_by_hand(params, CLIENTS[0], 3, 4, *SGD))

    algorithm = fl.algorithms.fedbn(fl.models.supervised(model), *SGD, **given, population=3)
    state = after(algorithm, params)
    each, models = [trained_by_hand(params, client, 3, 2, *SGD) for client in CLIENTS], algorithm.models(state)
    for k, mine in enumerate(each):
        norms = mine.params["BatchNorm_0"], mine.statistics
        close(jax.tree.map(lambda x, k=k: x[k], (models.params["BatchNorm_0"], models.statistics)), norms)
    dense = [mine.params["Dense_0"] for mine in each]
    close(state.server.inner.params.params["Dense_0"], jax.tree.map(lambda *x: sum(x) / 3, *dense))


@pytest.mark.deep
def test_frozen_statistics_are_taken_in_training_and_stay():
    model, params = model_and_params("frozen")
    begun = params._replace(statistics={"BatchNorm_0": {"mean": jnp.full(4, 0.5), "var": jnp.full(4, 4.0)}})
    normal = model.apply(begun, {"x": jnp.asarray(CLIENTS[0]["x"])}, jax.random.key(0))
    np.testing.assert_allclose(
        normal, (CLIENTS[0]["x"] - 0.5) / np.sqrt(4 + 1e-5) @ params.params["Dense_0"]["kernel"], rtol=1e-4, atol=1e-6
    )
    algorithm = fl.algorithms.fedavg(fl.models.supervised(model), optax.adamw(0.1), batches=fl.Batches(3), population=3)
    ended = algorithm.params(after(algorithm, begun, 2))
    jax.tree.map(np.testing.assert_array_equal, ended.statistics, begun.statistics)
    assert (np.asarray(ended.params["BatchNorm_0"]["scale"]) != 1).any()


def renamed(params):
    """The leaves of `Net` as `NetOfNnx` calls them."""
    names = {"BatchNorm_0": "norm", "Dense_0": "out"}
    return WithStatistics(*({names[name]: value for name, value in part.items()} for part in params))


@pytest.mark.deep
@pytest.mark.parametrize("statistics", ["averaged", "frozen"])
def test_the_same_layers_of_nnx_train_to_the_same_model(statistics):
    linen, params = model_and_params(statistics)
    other = from_nnx(NetOfNnx, mask="real", statistics=statistics)
    assert jax.tree.structure(other.init(jax.random.key(0), DATA.example)) == jax.tree.structure(renamed(params))
    ended = []
    for model, first in ((linen, params), (other, renamed(params))):
        algorithm = fl.algorithms.fedavg(fl.models.supervised(model), *SGD, batches=fl.Batches(3, epochs=2), population=3)
        ended.append(algorithm.params(after(algorithm, first, 2)))
    close(renamed(ended[0]), ended[1])
    close(*(fl.evaluate(fl.models.supervised(m), p, DATA)["loss"].total for m, p in ((linen, ended[0]), (other, ended[1]))))


def test_dropout_of_nnx_is_on_in_training_and_other_for_each_client():
    model = from_nnx(lambda rngs: nnx.Dropout(0.5, rngs=rngs))
    params, ones = model.init(jax.random.key(0), {"x": jnp.zeros(8)}), {"x": jnp.ones((4, 8))}
    assert params == {} and (model.apply(params, ones, None) == 1).all()
    masks = jax.vmap(lambda key: model.apply(params, ones, key))(jax.random.split(jax.random.key(1), 2))
    assert set(np.asarray(masks).ravel().tolist()) == {0, 2} and (masks[0] != masks[1]).any()
    dense = from_nnx(lambda rngs: nnx.Linear(8, 3, rngs=rngs))
    first, second = (dense.init(jax.random.key(k), {"x": jnp.zeros(8)})["kernel"] for k in (0, 1))
    assert (first != second).all()


@pytest.mark.deep
def test_statistics_of_bfloat16_steps_are_float32_and_a_variance_below_0_is_0():
    model, params = model_and_params()
    work = fl.sgd_work(fl.models.supervised(model), *SGD, precision="bfloat16")
    server = fl.optimizer_server(optax.sgd(1.0))
    algorithm = fl.federate(work, fl.aggregators.mean(), server, batches=fl.Batches(None, steps=3), population=3)
    got = algorithm.params(after(algorithm, params, 3)).statistics["BatchNorm_0"]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0.02, atol=0.02), got, expected_statistics(UNIFORM, 3))
    assert got["mean"].dtype == np.float32
    noisy = params._replace(statistics={"BatchNorm_0": {"mean": jnp.zeros(4), "var": jnp.full(4, -0.1)}})
    assert np.isfinite(model.apply(noisy, {"x": jnp.asarray(CLIENTS[0]["x"])}, None)).all()


def test_what_would_lose_statistics_is_refused():
    model, params = model_and_params()
    loss_fn, given = fl.models.supervised(model), {"batches": fl.Batches(2), "population": 3}
    lost = "running statistics change in training, and here they would be lost"
    with pytest.raises(ValueError, match=lost):
        model.apply(params, {"x": jnp.zeros((2, 4))}, jax.random.key(0))
    with pytest.raises(ValueError, match=lost):
        after(fl.algorithms.moon(model, *SGD, **given), params)
    private = fl.privacy.record_level(clip=1.0, noise_multiplier=1.0, batch_size=2)
    work = fl.sgd_work(loss_fn, *SGD, gradients=private)
    with pytest.raises(ValueError, match="record_level: the model's running statistics are of a batch's examples"):
        after(fl.federate(work, fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), **given), params)
    for name, own in (("qfedavg", {"q": 1.0}), ("fedlion", {}), ("apfl", {})):
        with pytest.raises(ValueError, match=f"{name}: .*, and the model has running statistics: take layers without them"):
            getattr(fl.algorithms, name)(loss_fn, learning_rate=0.1, **given, **own).init(params, jax.random.key(0))


class Deaf(nn.Module):
    """Its layer of batch normalisation does not hear what the call says."""

    average: bool

    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(use_running_average=self.average)(x)


class Remembers(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + self.variable("cache", "last", jnp.zeros, ()).value


class Caches(nnx.Module):
    def __init__(self, rngs):
        self.last = nnx.Cache(jnp.zeros(()))

    def __call__(self, x):
        return x + self.last


def test_layers_that_do_not_hear_and_state_that_cannot_be_averaged_are_refused():
    example, batch = {"x": jnp.ones(4)}, {"x": jnp.ones((2, 4)), "y": jnp.zeros(2, int)}
    model = from_linen(Deaf(True))
    with pytest.raises(ValueError, match="BatchNorm_0 of Deaf takes its running statistics in training: its call has flag train; name"):
        fl.models.supervised(model)(model.init(jax.random.key(0), example), batch, jax.random.key(0))
    with pytest.raises(ValueError, match="BatchNorm_0 of Deaf changes them in evaluation"):
        from_linen(Deaf(False)).init(jax.random.key(0), example)
    assert from_linen(Deaf(False), statistics="frozen").init(jax.random.key(0), example).statistics
    with pytest.raises(ValueError, match=r"keeps state beside its parameters \(\['cache'\]\)"):
        from_linen(Remembers()).init(jax.random.key(0), example)
    with pytest.raises(ValueError, match="from_nnx: the module keeps Cache: of its state, BatchStat alone"):
        from_nnx(Caches).init(jax.random.key(0), example)
    with pytest.raises(ValueError, match="from_nnx: mask='real' is no argument of Linear, whose call takes inputs"):
        from_nnx(lambda rngs: nnx.Linear(4, 2, rngs=rngs), mask="real").init(jax.random.key(0), example)
    for make, error in ((NetOfNnx(nnx.Rngs(0)), "must be a function rngs -> module"), (lambda rngs: 3, "must make a flax.nnx.Module")):
        with pytest.raises(TypeError, match=error):
            from_nnx(make).init(jax.random.key(0), example)
    for adapt, of in ((from_linen, Net()), (from_nnx, NetOfNnx)):
        with pytest.raises(ValueError, match='statistics must be "averaged" or "frozen", got \'kept\''):
            adapt(of, statistics="kept")


@pytest.mark.deep
def test_a_server_that_clips_the_norm_of_all_leaves_does_not_see_statistics():
    """The learned change is shorter than the bound, that of the statistics longer."""
    _, params = model_and_params()
    change = jax.tree.map(jnp.ones_like, params)._replace(params=jax.tree.map(lambda x: jnp.full_like(x, 1e-3), params.params))
    assert optax.tree.norm(change.params) < 0.1 < optax.tree.norm(change.statistics)
    server = fl.optimizer_server(optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)))
    close(server.update(change, server.init(params), fl.Info(0, None, {})).params, optax.tree.add(params, change))
