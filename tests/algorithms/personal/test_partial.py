"""Methods of which some leaves stay: a table of reference values, and FedAvg and local training at the two ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
SGD, ALL = optax.sgd(0.1), fl.sampling.everyone()
DATA = fl.FederatedData.from_clients([{"t": jnp.array([t])} for t in (1.0, 2.0, -1.0)])
FIVE = fl.Batches(None, steps=5)
# f_k(b, h) = (b h - t_k)^2 / 2, five full gradients a round, everyone: the body, then the heads, after each of two rounds.
TABLE = {
    "fedper": (
        lambda **of: fl.algorithms.fedper(loss_fn, SGD, batches=FIVE, population=3, personal="head", **of),
        [(1.1115897665, (0.6980136407, 1.1081991095, -0.0576329879)), (1.2448990698, (0.7868629592, 1.3727689524, -0.4662795821))],
    ),
    "fedrep": (
        lambda **of: fl.algorithms.fedrep(
            loss_fn, SGD, batches=fl.Batches(None, epochs=6), population=3, personal="head", head_epochs=5, **of
        ),
        [(1.0432075803, (0.7047550000, 1.1142650000, -0.1142650000)), (1.0782473194, (0.8159079494, 1.4658611384, -0.4839984285))],
    ),
    "fedbabu": (
        lambda **of: fl.algorithms.fedbabu(loss_fn, SGD, batches=FIVE, population=3, fixed="head", **of),
        [(1.0396347689, 0.5), (1.0745567930, 0.5)],
    ),
    "lg_fedavg": (
        lambda **of: fl.algorithms.lg_fedavg(loss_fn, SGD, batches=FIVE, population=3, personal="body", **of),
        [((1.1097557198, 1.3900106376, 0.8350029420), 0.5828599208), ((1.1906180069, 1.6589130768, 0.5879742111), 0.6514149042)],
    ),
}


def loss_fn(params, batch, key):
    return (params["body"] * params["head"] - batch["t"]) ** 2 / 2


def begin():
    return {"body": jnp.ones(()), "head": jnp.full((), 0.5)}


@pytest.mark.parametrize("engine", [fl.packed(2), pytest.param(fl.padded(), marks=pytest.mark.deep)])
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ("fedrep", "fedbabu") else pytest.mark.deep) for name in TABLE])
def test_a_method_is_its_table(name, engine):
    make, expected = TABLE[name]
    algorithm = make(engine=engine)
    state = algorithm.init(begin(), jax.random.key(0))
    a_round = jax.jit(lambda state: fl.advance(algorithm, DATA, state, ALL, rounds=1))
    for body, head in expected:
        state, history = a_round(state)
        found = algorithm.params(state) if algorithm.models is None else algorithm.models(state)
        np.testing.assert_allclose(found["body"], np.broadcast_to(body, np.shape(found["body"])), atol=1e-9)
        np.testing.assert_allclose(found["head"], np.broadcast_to(head, np.shape(found["head"])), atol=1e-9)
        assert history["uplink_bits"].tolist() == history["downlink_bits"].tolist() == [3 * 64]  # one number a client


@pytest.mark.deep
def test_fedrep_finds_the_subspace_that_all_clients_slopes_lie_in():
    """y = x B w_k without noise: the largest principal angle between the body's columns and B's goes to 0."""
    rng = np.random.default_rng(0)
    truth, slopes = np.linalg.qr(rng.normal(size=(8, 2)))[0], rng.normal(size=(10, 2))
    clients = [{"x": x, "y": x @ truth @ w} for x, w in zip(rng.normal(size=(10, 30, 8)), slopes, strict=True)]

    def squares(params, batch, key):
        return 0.5 * (batch["x"] @ params["body"] @ params["head"] - batch["y"]) ** 2

    algorithm = fl.algorithms.fedrep(
        squares, optax.sgd(0.5), batches=fl.Batches(None, epochs=21), population=10, personal="head", head_epochs=20
    )
    body = np.linalg.qr(rng.normal(size=(8, 2)))[0]
    run = jax.jit(lambda data, rounds: jax.lax.fori_loop(
        0, rounds, lambda t, state: fl.advance(algorithm, data, state, ALL, rounds=1)[0],
        algorithm.init({"body": jnp.asarray(body), "head": jnp.zeros(2)}, jax.random.key(0)),
    ))  # fmt: skip
    sines = []
    for rounds in (0, 50, 300):
        learned = np.linalg.qr(algorithm.params(run(fl.FederatedData.from_clients(clients), rounds))["body"])[0]
        sines.append(np.linalg.norm(learned - truth @ (truth.T @ learned), 2))
    print(sines)
    assert sines[0] > 0.5 and sines[1] < 0.1 * sines[0] and sines[2] < 1e-6
