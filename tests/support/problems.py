"""Small problems that several test files train on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import fedjax_lite as fl
from fedjax_lite.data.federated import Piece
from fedjax_lite.engine import placement

SIZES = (5, 1, 12, 3, 8, 2, 7)  # ragged; with batches of 4, short last batches of 1, 3 and 2
FEATURES, CLASSES = 6, 3


def softmax_data(sizes=SIZES, seed=0, empty=False):
    """Labelled clients of the given sizes."""
    rng = np.random.default_rng(seed)
    clients = [{"x": rng.normal(size=(n, FEATURES)), "y": rng.integers(0, CLASSES, n)} for n in sizes]
    return fl.FederatedData.from_clients(clients, allow_empty=empty)


def softmax_loss(params, batch, key):
    """Cross-entropy of logits x W, and accuracy."""
    logits = batch["x"] @ params
    losses = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, batch["y"][:, None], axis=-1)[:, 0]
    return losses, {"accuracy": (jnp.argmax(logits, -1) == batch["y"]).astype(logits.dtype)}


def softmax_params(seed=1):
    """Starting weights `[features, classes]`."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=(FEATURES, CLASSES)) * 0.1)


def dealt(data, ids):
    """The examples of the clients `ids` alone, dealt in turn over the devices of the mesh in use."""
    ids, most = np.asarray(ids), data.largest
    owner = np.arange(len(ids), dtype=np.int32) % placement.device_count()

    def held_by(place):
        def leaf(x):
            out = np.zeros((len(ids) * most, *x.shape[1:]), x.dtype)
            for slot in np.flatnonzero(owner == place):
                start, size = int(data.start[ids[slot]]), int(data.size[ids[slot]])
                out[slot * most : slot * most + size] = x[start : start + size]
            return out

        return jax.tree.map(leaf, data.examples)

    start, owner = placement.everywhere((np.arange(len(ids), dtype=np.int32) * most, owner))
    return Piece(placement.split({place: held_by(place) for place in placement.local_devices()}), start, most, data.population, owner)


# The three-client quadratic of the reference table: f_k(x) = 1/2 sum_j A_kj (x_j - c_kj)^2.
QUADRATIC_A = np.array([[1, 2], [3, 1], [0.5, 4]])
QUADRATIC_C = np.array([[1, 0], [-1, 2], [0, -1.0]])


def quadratic_data():
    """One example a client: its matrix's diagonal and its minimum."""
    return fl.FederatedData.from_clients([{"a": a[None], "c": c[None]} for a, c in zip(QUADRATIC_A, QUADRATIC_C, strict=True)])


def quadratic_loss(params, batch, key):
    """1/2 sum_j a_j (x_j - c_j)^2 of each example."""
    return 0.5 * jnp.sum(batch["a"] * (params[None] - batch["c"]) ** 2, axis=-1)


def slope_data(clients=3):
    """Clients for `slope_loss`, one example each."""
    return fl.FederatedData.from_clients([{"x": np.ones(1)}] * clients)


def slope_loss(params, batch, key):
    """A loss whose gradient is 1 everywhere: with SGD the model falls by exactly the sum of the rates."""
    return params * batch["x"]


def with_steps(steps):
    """Everyone takes part, client k with steps[k] local steps."""

    def sample(key, sizes, round):
        return fl.sampling.cohort(key, sizes, jnp.arange(len(steps)))._replace(steps=jnp.asarray(steps, jnp.int32))

    return sample


simulate = partial(jax.jit, static_argnames=("algorithm", "sampler", "rounds"))(
    lambda algorithm, data, params, sampler, rounds, key: fl.simulate(algorithm, data, params, sampler, rounds=rounds, key=key)
)
