"""Local privacy as a part: its schedules, runs with it, what it does not hide, and what is refused."""

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from local_noise import MAKE, ZEROS, C, both, flat, sent, update, variance
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import refuse
from fedjax_lite.base import Hidden
from fedjax_lite.configuration import schema
from fedjax_lite.uplink.local_dp import _gaussian_multiplier, local_gaussian, local_laplace

MORE = {"gaussian": {"delta": 1e-5}, "laplace": {}}
Z_OF = {"gaussian": lambda epsilon: _gaussian_multiplier(epsilon, 1e-5), "laplace": lambda epsilon: 2 / epsilon}


def at_rounds(transform, rounds):
    """What is sent in each of the rounds, of messages of zeros, flat."""
    each = jax.vmap(lambda round: update(transform, ZEROS, round=round))(jnp.asarray(rounds, jnp.int32))
    return jnp.concatenate([x.reshape(len(rounds), -1) for x in jax.tree.leaves(each)], axis=1)


@both
def test_a_list_of_epsilons_has_one_a_round_and_past_its_end_nothing_is_given_away(kind):
    epsilons = [4.0, 2, 1.0]

    @jax.jit
    def run():
        alone = update(MAKE[kind](clip=C, epsilon=epsilons[1], **MORE[kind]), ZEROS)
        one_round = at_rounds(MAKE[kind](clip=C, epsilon=[4.0], **MORE[kind]), [0, 1])
        return at_rounds(MAKE[kind](clip=C, epsilon=epsilons, **MORE[kind]), [0, 1, 2, 3, 99]), alone, one_round

    found, alone, one_round = run()
    np.testing.assert_allclose(found[1], flat(alone), rtol=1e-6)
    for noise, epsilon in zip(found, epsilons, strict=False):
        np.testing.assert_allclose(noise, flat(sent(kind, ZEROS, z=Z_OF[kind](epsilon))), rtol=1e-6)
    assert np.isfinite(found[:3]).all() and np.isnan(found[3:]).all()
    assert np.isfinite(one_round[0]).all() and np.isnan(one_round[1]).all()


@both
def test_a_multiplier_can_follow_a_schedule_or_be_traced(kind):
    z_at, zs = optax.linear_schedule(2.0, 1.0, 2), np.array([0.0, 0.5, 2.0], np.float32)

    @jax.jit
    def run(zs):
        sweep = [jax.vmap(lambda z: update(MAKE[kind](clip=C, noise_multiplier=z), ZEROS))(zs)]
        if kind == "laplace":
            sweep.append(jax.vmap(lambda epsilon: update(local_laplace(clip=C, epsilon=epsilon), ZEROS))(2 / zs))
        return at_rounds(MAKE[kind](clip=C, noise_multiplier=fl.on_round(z_at)), range(4)), sweep

    unit = flat(sent(kind, ZEROS, clip=1, z=1))
    followed, sweep = run(zs)
    np.testing.assert_allclose(followed, np.outer([2.0, 1.5, 1.0, 1.0], unit) * C, rtol=1e-6)
    for swept in sweep:
        for name, at in (("b", slice(0, 3)), ("w", slice(3, 7))):
            np.testing.assert_allclose(np.reshape(swept[name], (3, -1)), np.outer(zs, unit[at]) * C, rtol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", pytest.param("laplace", marks=pytest.mark.deep)])
def test_in_a_run_every_client_and_round_has_its_own_noise_and_past_the_list_nothing_is_learned(kind):
    """With no learning, the model is the noise alone: its mean over clients, anew in each round."""
    data, clients, rounds, epsilon = softmax_data(), len(SIZES), 40, 2.0
    algorithm = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.0)),
        fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(size=4, shuffle=False),
        population=clients,
        engine=fl.sequential(),
        uplink=MAKE[kind](clip=C, epsilon=[epsilon] * rounds, **MORE[kind]),
    )

    @jax.jit
    def run(params, key):
        def round(state, _):
            state, metrics = fl.advance(algorithm, data, state, fl.sampling.everyone(), rounds=1)
            return state, (algorithm.params(state), metrics["non_finite"][0])

        return jax.lax.scan(round, algorithm.init(params, key), None, length=rounds + 2)[1]

    models, lost = run(jnp.zeros_like(softmax_params()), jax.random.key(0))
    assert lost.tolist() == [0] * rounds + [clients] * 2  # all of a round's, and so `fl.run` stops
    models = np.asarray(models, np.float64).reshape(rounds + 2, -1)
    assert (models[rounds:] == models[rounds - 1]).all()
    steps = np.diff(models[:rounds], axis=0, prepend=0)
    assert abs((steps**2).mean() / (variance(kind, Z_OF[kind](epsilon)) / clients) - 1) < 5 * math.sqrt(2 / steps.size)
    assert np.abs(np.corrcoef(steps)[np.triu_indices(rounds, 1)]).mean() < 0.3


@pytest.mark.parametrize(
    ("make", "arguments", "error"),
    [
        (local_gaussian, {"clip": 0.0, "noise_multiplier": 1.0}, "clip must be positive"),
        (local_gaussian, {"clip": 1.0}, "give one of noise_multiplier and epsilon"),
        (local_gaussian, {"clip": 1.0, "noise_multiplier": 1.0, "epsilon": 1.0, "delta": 0.1}, "give one of noise_multiplier and epsilon"),
        (local_gaussian, {"clip": 1.0, "noise_multiplier": 1.0, "delta": 0.1}, "delta goes with epsilon"),
        (local_gaussian, {"clip": 1.0, "noise_multiplier": -1.0}, "noise_multiplier must be finite and not negative"),
        (local_gaussian, {"clip": 1.0, "noise_multiplier": fl.on_step(lambda j: 1.0)}, "give fl.on_round, not 'step'"),
        (local_gaussian, {"clip": 1.0, "epsilon": 1.0}, "local_gaussian: delta must be between 0 and 1, got None: usually below"),
        (local_gaussian, {"clip": 1.0, "epsilon": 1.0, "delta": 1.0}, "delta must be between 0 and 1, got 1.0"),
        (local_gaussian, {"clip": 1.0, "epsilon": 1e308, "delta": 0.1}, "epsilon must be from 1e-6 to 1e6, got 1e.308: give noise_mult"),
        (local_gaussian, {"clip": 1.0, "epsilon": [1.0, 1e-12], "delta": 0.1}, "epsilon must be from 1e-6 to 1e6, got 1e-12"),
        (local_gaussian, {"clip": 1.0, "epsilon": 0.0, "delta": 0.1}, "epsilon must be positive"),
        (local_gaussian, {"clip": 1.0, "epsilon": [], "delta": 0.1}, "epsilon is an empty list"),
        (local_gaussian, {"clip": 1.0, "epsilon": [1.0, -1.0], "delta": 0.1}, "epsilon must be positive"),
        (local_gaussian, {"clip": 1.0, "epsilon": jnp.ones(()), "delta": 0.1}, "epsilon must be a plain number"),
        (local_laplace, {"clip": 1.0}, "give one of noise_multiplier and epsilon"),
        (local_laplace, {"clip": 1.0, "epsilon": math.inf}, "epsilon must be positive and finite"),
    ],
)
def test_refusals(make, arguments, error):
    with pytest.raises(ValueError, match=error):
        make(**arguments)


@pytest.mark.parametrize("value", ["1e-5", None, True, float("nan"), 0, 1, -0.1, 1.5, jnp.float32(0.1)], ids=repr)
def test_a_delta_is_a_number_between_0_and_1(value):
    refuse.delta("f", 0.5)
    refuse.delta("f", np.float32(1e-5))
    refuse.delta("f", 0, or_zero=True)
    with pytest.raises(ValueError, match=f"f: delta must be between 0 and 1, got {re.escape(repr(value))}: usually below one over"):
        refuse.delta("f", value)


def test_update_needs_a_key_and_a_schedule_its_round():
    transform = local_laplace(clip=1.0, epsilon=[1.0, 2.0])
    with pytest.raises(ValueError, match="keyword key"):
        transform.update(jnp.zeros(2), ())
    with pytest.raises(ValueError, match="keyword round"):
        transform.update(jnp.zeros(2), (), key=jax.random.key(0))


@both
def test_a_table_can_describe_it(kind):
    annotations = {name: value for name, value in MAKE[kind].__annotations__.items() if name != "return"}
    assert all(schema.describable(annotation) for annotation in annotations.values())
    for value, name, fits in ((1, "epsilon", True), ([1, 0.5], "epsilon", True), ("1", "epsilon", False), (2.0, "clip", True)):
        assert schema.fits(value, annotations[name]) == fits
    assert isinstance(MAKE[kind](1.0, noise_multiplier=1.0), optax.GradientTransformationExtraArgs)
    assert MAKE[kind](1.0, noise_multiplier=1.0).init(jnp.zeros(2)) == Hidden()


def private_run(work=None, server=None, uplink=None, **options):
    algorithm = fl.federate(
        work or fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.aggregators.mean(),
        server or fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(4, shuffle=False), population=len(SIZES), uplink=uplink,
        engine=fl.sequential(),
    )  # fmt: skip
    return fl.run(
        algorithm, softmax_data(), softmax_params(), fl.sampling.everyone(), rounds=1, key=jax.random.key(0), progress=False, **options
    )


RECORD = fl.privacy.record_level(1.0, 1.0, 4)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"uplink": local_gaussian(1.0, 1.0), "server": fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0)))},
            "where clients are private",
        ),
        (
            {"uplink": optax.chain(local_laplace(1.0, 1.0)), "server": fl.optimizer_server(optax.contrib.reduce_on_plateau())},
            "optimizer_server: the optimizer reads the loss",
        ),
        (
            {"work": fl.sgd_work(softmax_loss, optax.polyak_sgd(), gradients=RECORD)},
            "sgd_work: the optimizer reads the loss .*, which no noise hides",
        ),
        ({"uplink": local_gaussian(1.0, 1.0), "converge": fl.Convergence("loss")}, "loss is computed from clients' data without noise"),
        ({"work": fl.sgd_work(softmax_loss, optax.sgd(0.1), gradients=RECORD), "converge": fl.Convergence("loss")}, "loss is computed"),
    ],
)
def test_what_clients_report_steers_nothing_where_they_hide_their_data(parts, message):
    with pytest.raises(ValueError, match=message):
        private_run(**parts)


def test_a_report_marks_what_clients_do_not_hide(tmp_path):
    private_run(uplink=local_gaussian(1.0, 1.0), out=tmp_path / "run")
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]
    assert "clients hide their data themselves" in told["note"] and "loss" in told["outside"] and "epsilon_pld" not in told
