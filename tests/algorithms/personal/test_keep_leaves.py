"""Leaves that stay: FedAvg and local training at the two ends, and what each part of a round sees of the leaves between."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite.privacy.accountant import covered

POPULATION, BATCHES, SOME = len(SIZES), fl.Batches(4), fl.sampling.uniform(4)
ENGINE = fl.padded()  # soonest compiled
SGD = optax.sgd(0.1, momentum=0.9)


def loss_fn(params, batch, key):
    """That of a model of three leaves."""
    return softmax_loss(params["body"] * params["scale"][None] + params["head"][None], batch, key)


def begin():
    classes = softmax_params().shape[1]
    return {"body": softmax_params(), "head": jnp.linspace(-0.1, 0.1, classes), "scale": jnp.ones(classes)}


def kept(personal="head", server=None, aggregator=None, uplink=None, some=True, fixed="none", optimizer=SGD, **options):
    work, server = fl.sgd_work(loss_fn, optimizer, **options), server or fl.optimizer_server(optax.sgd(1.0))
    parts = fl.keep_leaves(work, server, personal, fixed, some=some)
    built = fl.federate(
        parts.work, aggregator or fl.aggregators.weighted_mean(), parts.server, batches=BATCHES, population=POPULATION, uplink=uplink,
        engine=ENGINE,
    )  # fmt: skip
    return built._replace(models=parts.models)


def simulated(algorithm, rounds=3, data=None, sampler=SOME):
    return fl.simulate(algorithm, data or softmax_data(), begin(), sampler, rounds=rounds, key=jax.random.key(1))


def same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_where_all_travels_it_is_fedavg_to_the_bit():
    state, history = simulated(kept("none", some=False))
    plain, expected = simulated(fl.algorithms.fedavg(loss_fn, SGD, batches=BATCHES, population=POPULATION, engine=ENGINE))
    same(state.server.inner, plain.server)
    same(history, expected)


@pytest.mark.deep
def test_where_nothing_travels_it_is_local_training():
    plain = optax.sgd(0.1)
    algorithm = kept("all", some=False, optimizer=plain)
    alone = fl.baselines.local_only(loss_fn, plain, batches=BATCHES, population=POPULATION, engine=ENGINE)
    (state, history), (expected, _) = simulated(algorithm), simulated(alone)
    same(algorithm.models(state), alone.models(expected))
    same(algorithm.params(state), begin())  # what a new client starts with
    assert history["uplink_bits"].tolist() == history["downlink_bits"].tolist() == [0.0] * 3


def test_parts_see_what_travels_alone():
    """Bits, the server's moments, error feedback, and a rule that must see all messages."""
    body, seen = begin()["body"].size, []
    for options in (
        {"aggregator": fl.aggregators.median(), "keep_optimizer": True},
        {"uplink": optax.trace(0.5), "server": fl.optimizer_server(optax.adam(0.1))},
    ):
        algorithm = kept("head|scale", **options)
        state, history = simulated(algorithm)
        seen.append(state)
        assert history["uplink_bits"].tolist() == history["downlink_bits"].tolist() == [4 * 32 * body] * 3
        assert np.isfinite(history["loss"]).all() and (history["update_norm"] > 0).all()
        models = algorithm.models(state)
        same(models["body"], np.broadcast_to(algorithm.params(state)["body"], models["body"].shape))
        same(algorithm.models(state, jnp.array([5, 2])), jax.tree.map(lambda x: x[jnp.array([5, 2])], models))
        assert jax.tree.map(jnp.shape, algorithm.models(state, jnp.int32(3))) == jax.tree.map(jnp.shape, begin())
        same({name: algorithm.params(state)[name] for name in ("head", "scale")}, {name: begin()[name] for name in ("head", "scale")})
    assert [x.shape for x in jax.tree.leaves(seen[1].uplink)] == [(POPULATION, *begin()["body"].shape)]
    assert [x.shape for x in jax.tree.leaves(seen[1].server.inner.optimizer) if x.ndim] == [begin()["body"].shape] * 2


@pytest.mark.deep
def test_privacy_is_of_what_travels():
    """Clients clipped to 1e-3: the mean moves by at most that, whatever their heads did; epsilon is that of clients who keep nothing."""
    rate, poisson = 0.5, fl.sampling.poisson(0.5)
    silent = fl.aggregators.dp_mean(clip=1e-3, noise_multiplier=0.0, clients_per_round=rate * POPULATION)
    state, history = simulated(kept(aggregator=silent), sampler=poisson)
    most = np.asarray(history["clients"]) * 1e-3 / (rate * POPULATION)
    assert (history["update_norm"] <= most * (1 + 1e-5)).all() and (history["update_norm"] > 0.3 * most).any()
    heads = np.asarray(kept(aggregator=silent).models(state)["head"])
    assert np.abs(heads - np.asarray(begin()["head"])[None]).max() > 0.01  # what stays is neither clipped nor counted
    noisy = fl.aggregators.dp_mean(1.0, 1.0, clients_per_round=rate * POPULATION)
    both = kept(aggregator=noisy), fl.algorithms.fedavg(loss_fn, SGD, batches=BATCHES, population=POPULATION, aggregator=noisy)
    spent = [fl.privacy.account(each.privacy, poisson, POPULATION, rounds=3, delta=1e-2) for each in both]
    assert spent[0] == spent[1] and np.isfinite(spent[0].pld)


def test_a_private_aggregator_asks_for_clients_drawn_apart():
    rate, poisson = 0.5, fl.sampling.poisson(0.5)
    noisy = fl.aggregators.dp_mean(1.0, 1.0, clients_per_round=rate * POPULATION)
    private, plain = kept(aggregator=noisy), fl.algorithms.fedavg(loss_fn, SGD, batches=BATCHES, population=POPULATION, aggregator=noisy)
    assert private.privacy.personal and not plain.privacy.personal
    for sampler in (fl.sampling.uniform(4), fl.sampling.poisson(0.5, capacity=4), fl.sampling.dropout(fl.sampling.uniform(4), 0.5)):
        with pytest.raises(ValueError, match="clients keep models of their own.*; take fl.sampling.poisson"):
            fl.privacy.account(private.privacy, sampler, POPULATION, rounds=3, delta=1e-2)
    for sampler in (fl.sampling.everyone(), fl.sampling.cyclic(4), poisson):
        assert covered(private.privacy, sampler, POPULATION)[0].personal
    with pytest.raises(ValueError, match="clients keep models of their own"):
        fl.run(private, softmax_data(), begin(), SOME, rounds=1, key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match="with a private aggregator the uplink can't keep"):
        simulated(kept(aggregator=noisy, uplink=optax.trace(0.5)), sampler=poisson)


@pytest.mark.deep
def test_own_models_are_evaluated_a_few_at_a_time():
    algorithm = kept()
    state, _ = simulated(algorithm)
    stacked = fl.evaluate_each(loss_fn, algorithm.models(state), softmax_data())
    asked = []
    one = fl.evaluate_each(loss_fn, lambda id: asked.append(id) or algorithm.models(state, id), softmax_data(), lanes=2)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), one, stacked)
    k = int(np.argmax(SIZES))
    mine = jax.tree.map(lambda x: x[k], algorithm.models(state))
    np.testing.assert_allclose(one["loss"].value()[k], fl.evaluate(loss_fn, mine, softmax_data())["loss"].value()[k], rtol=1e-6)


def test_a_model_that_is_not_finite_is_not_kept():
    """The head's loss is infinite after a step, the body's message is not: the client keeps the head it had."""
    data = fl.FederatedData.from_clients([{"t": jnp.array([1e30])}, {"t": jnp.array([1.0])}])
    parts = fl.keep_leaves(
        fl.sgd_work(lambda params, batch, key: params["head"] * batch["t"] * 1e9 + 0 * params["body"], optax.sgd(1.0)),
        fl.optimizer_server(optax.sgd(1.0)), "head",
    )  # fmt: skip
    algorithm = fl.federate(parts.work, fl.aggregators.mean(), parts.server, batches=fl.Batches(None), population=2)
    first = {"body": jnp.zeros(()), "head": jnp.ones(())}
    state, _ = fl.simulate(algorithm, data, first, fl.sampling.everyone(), rounds=1, key=jax.random.key(0))
    assert parts.models(state)["head"].tolist() == [1.0, -1e9]


@pytest.mark.deep
def test_a_study_over_rates_is_its_single_runs():
    def run(rate):
        algorithm = kept(optimizer=optax.sgd(rate))
        state, history = simulated(algorithm)
        return algorithm.models(state), history["loss"]

    rates = jnp.array([0.1, 0.01])
    together = jax.jit(jax.vmap(run))(rates)
    for k in range(2):
        one = jax.jit(run)(rates[k])
        jax.tree.map(lambda x, y, k=k: np.testing.assert_allclose(x[k], y, rtol=1e-5, atol=1e-6), together, one)


@pytest.mark.deep
def test_rows_in_host_memory_and_a_resumed_run_are_the_same_bits(tmp_path):
    def run(rounds=6, **more):
        options = {"key": jax.random.key(1), "evaluate_every": 3, "progress": False} | more
        return fl.run(algorithm, softmax_data(), begin(), fl.sampling.uniform(2), rounds=rounds, loss_fn=loss_fn, **options)

    def of_the_global_model(history):
        """Without own models, which are evaluated where their rows are on the device."""
        spread = [{name: of for name, of in record.get("train_clients", {}).items() if not name.startswith("own_")} for record in history]
        rest = [{name: x for name, x in record.items() if "own_" not in name and name != "train_clients"} for record in history]
        return rest, spread

    algorithm = kept()
    whole = run(own_on_host=False)
    run(rounds=3, own_on_host=True, out=tmp_path / "run")
    resumed = run(own_on_host=True, out=tmp_path / "run", resume=True)
    assert of_the_global_model(resumed.history) == of_the_global_model(whole.history)
    assert "train_own_loss" in whole.history[-1]
    same(resumed.params, whole.params)
    ids, rows = resumed.state.own
    same(rows.leaves["head"], np.asarray(whole.state.own.leaves["head"])[ids])
    with pytest.raises(ValueError, match="what clients keep is in host memory"):
        algorithm.models(resumed.state)


def test_turns_and_refusals():
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    turns = fl.train_leaves(optimizer, [("head", 1), ("none", 1), (fl.leaves.besides("head"), None)])
    params = {"body": jnp.ones(()), "head": jnp.ones(())}
    state = turns.init(params)
    moved = []
    for epoch in range(4):
        updates, state = turns.update(params, state, params, epoch=jnp.int32(epoch))
        moved.append((float(updates["body"]) != 0, float(updates["head"]) != 0))
    assert moved == [(False, True), (False, False), (True, False), (True, False)]
    assert state[0].mu["head"] < 0.1  # of one gradient, which fades
    assert callable(fl.train_leaves(optax.sgd, [("head", None)])) and fl.train_leaves("sgd", []) == "sgd"
    for make in (
        lambda: kept("nothing/.*"), lambda: kept(".*"), lambda: kept("none", fixed="nothing"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"keep_leaves: (personal|fixed)=.* chooses (no|every) leaf.*body, head, scale"):
            make().init(begin(), jax.random.key(0))
    with pytest.raises(ValueError, match="fedrep: head_epochs=2 leaves the body nothing of the 2 local epochs"):
        fl.algorithms.fedrep(loss_fn, SGD, batches=fl.Batches(4, epochs=2), population=3, personal="head", head_epochs=2)
    with pytest.raises(ValueError, match="fedrep: head_epochs must be"):
        fl.algorithms.fedrep(loss_fn, SGD, batches=fl.Batches(4, epochs=2), population=3, personal="head", head_epochs=0)


@pytest.mark.deep
def test_a_run_evaluates_own_models_where_clients_hold_examples_out():
    algorithm, options = kept(), {"rounds": 2, "key": jax.random.key(1), "evaluate_every": 1, "progress": False, "loss_fn": loss_fn}
    result = fl.run(algorithm, softmax_data(), begin(), SOME, test=softmax_data(SIZES[::-1]), **options)
    own = fl.evaluate_each(loss_fn, lambda id: algorithm.models(result.state, id), softmax_data(SIZES[::-1]))
    summary = fl.summarize({"own_loss": own["loss"]})
    np.testing.assert_allclose(result.history[-1]["test_own_loss"], summary["test_own_loss"], rtol=1e-6)
    np.testing.assert_allclose(
        result.history[-1]["test_clients"]["own_loss"]["mean"], summary["test_clients"]["own_loss"]["mean"], rtol=1e-6
    )
    assert result.history[-1]["test_own_loss"] != result.history[-1]["test_loss"]
    central = fl.run(algorithm, softmax_data(), begin(), SOME, test=softmax_data((5,)), **options)
    assert "test_loss" in central.history[-1] and "test_own_loss" not in central.history[-1]
