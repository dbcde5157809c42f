"""FedAsync by its worked table, its weights of age, one step with FedAvg, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadratics
from quadratics import A4

import fedjax_lite as fl

# (client, age) of each arrival, and the models after it without and with a proximal term.
ARRIVALS = fl.sampling.scheduled([[0], [1], [2], [0], [1]], ages=[[0], [1], [2], [2], [2]])
TABLE = {
    0.0: [
        (0.2457060000, 0), (-0.2114962340, 0.3474807576), (-0.1382317894, -0.0923634151), (0.1017711213, -0.0603677896),
        (-0.2339859902, 0.3153388689),
    ],
    0.5: [
        (0.2225178750, 0), (-0.1933488411, 0.3146877967), (-0.1263708378, -0.0867462577), (0.0943714732, -0.0566964725),
        (-0.2170205447, 0.2884681434),
    ],
}  # fmt: skip


def build(**more):
    return fl.algorithms.fedasync(quadratics.loss_fn, optax.sgd(0.1), batches=quadratics.batches(A4), population=3, **more)


def models(algorithm, sampler=ARRIVALS, rounds=5):
    @jax.jit
    def run(data):
        def one(state, _):
            state, metrics = algorithm.round(state, data, sampler(fl.round_key(state), data.size, state.round))
            return state, (algorithm.params(state), metrics)

        return jax.lax.scan(one, algorithm.init(jnp.zeros(2), jax.random.key(0)), length=rounds)[1]

    return run(A4.data())


@pytest.mark.parametrize("rho", TABLE)
def test_models_are_those_of_the_table(rho, x64):
    """x - x^{t - tau} is part of the step: what a client sends is its change."""
    params, metrics = models(build(rho=rho, window=3))
    np.testing.assert_allclose(params, TABLE[rho], atol=1e-9)
    assert metrics["uplink_bits"].tolist() == [128] * 5 == metrics["downlink_bits"].tolist()


SHARES = {
    "constant": ({}, [1, 1, 1]),
    "polynomial": ({"a": 1.0}, [1, 1 / 2, 1 / 3]),
    "hinge": ({"b": 1.0}, [1, 1, 1 / 11]),
}


@pytest.mark.deep
@pytest.mark.parametrize("staleness", SHARES)
def test_weights_of_age(staleness, x64):
    """One client again and again, who starts from x_0: x <- x + alpha s(tau) (y - x)."""
    more, shares = SHARES[staleness]
    again = fl.sampling.scheduled([[0]] * 3, ages=[[0], [1], [2]])
    params, _ = models(build(alpha=0.5, staleness=staleness, rho=0.0, **more), again, 3)
    x, y = np.zeros(2), (1 - (1 - 0.1 * A4.a[0]) ** 5) * A4.c[0]
    for share, found in zip(shares, params, strict=True):
        x = x + 0.5 * share * (y - x)
        np.testing.assert_allclose(found, x, atol=1e-12)


def lost_on_the_way(updates, state, params=None, *, client, **beside):
    """An uplink that spoils what client 1 sends."""
    return jnp.where(client.id == 1, jnp.nan, updates), state


def test_an_upload_that_is_not_finite_moves_nothing(x64):
    uplink = optax.GradientTransformationExtraArgs(lambda params: (), lost_on_the_way)
    params, metrics = models(build(rho=0.0, uplink=uplink))
    assert np.array_equal(params[0], params[1]) and np.array_equal(params[3], params[4]) and not np.array_equal(params[1], params[2])
    assert metrics["non_finite"].tolist() == [0, 1, 0, 0, 1]


REFUSED = {
    "alpha": (dict(alpha=0.0), r"fedasync: alpha must be in \(0, 1\], got 0.0"),
    "staleness": (dict(staleness="old"), 'fedasync: staleness must be "constant", "polynomial" or "hinge", got \'old\''),
    "a": (dict(a=-1.0), "fedasync: a must be finite and not negative, got -1.0"),
    "rho": (dict(rho=-1.0), "fedasync: rho must be finite and not negative, got -1.0"),
    "private": (
        dict(aggregator=fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=1)),
        "fedasync: clients arrive by their speed",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    more, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(**more)


@pytest.mark.parametrize(
    "sampler, more, message",
    [
        (fl.sampling.uniform(1), {}, "fedasync: the cohort has no ages, since its sampler knows no time"),
        (ARRIVALS, {"uplink": fl.uplink.local_gaussian(1.0, 1.0)}, "fedasync: .* hides the clients' data: take fedbuff"),
    ],
    ids=["ages", "hidden"],
)
def test_refusals_of_a_round(sampler, more, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: models(build(**more), sampler, 1))
