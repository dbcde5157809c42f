"""The run in segments that is tried for what it records, when it stops, and what it leaves in its folder: an algorithm by hand, in few
operations, since all that is asked is the runner's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl

DATA, TEST, KEY = softmax_data(), softmax_data((3, 0, 4, 1, 6, 2, 5), seed=1, empty=True), jax.random.key(0)
SAMPLER = fl.sampling.uniform(3)
OWNER = np.repeat(np.arange(len(SIZES)), SIZES)  # of each example
TRACED = []  # one entry whenever the loss is traced


def loss(params, batch, key):
    TRACED.append(key)
    return softmax_loss(params, batch, key)


def gradient_step(state, data, cohort):
    """A round: one step on the mean loss of all examples that the cohort has."""
    weight = jnp.zeros(len(SIZES)).at[cohort.id].add(cohort.weight)[OWNER]
    mean = lambda params: jnp.sum(weight * loss(params, data.examples, None)[0]) / jnp.maximum(jnp.sum(weight), 1)  # noqa: E731
    value, gradient = jax.value_and_grad(mean)(state.server)
    clients = jnp.sum(cohort.weight > 0).astype(jnp.float32)
    metrics = {"loss": jnp.where(clients > 0, value, jnp.nan), "clients": clients, "update_norm": jnp.linalg.norm(0.1 * gradient)}
    return state._replace(round=state.round + 1, server=state.server - 0.1 * gradient), metrics


def by_hand(round):
    """An algorithm whose state is its model alone."""
    return fl.Algorithm(lambda params, key: fl.State(jnp.int32(0), key, params, (), (), ()), round, lambda state: state.server)


FEDSGD = by_hand(gradient_step)  # one algorithm, so one compiled program a segment length


def run(rounds=7, algorithm=FEDSGD, sampler=SAMPLER, test=TEST, **options):
    """Segments of 3, 3 and 1 rounds: where lengths do not matter, let there be no others."""
    options = {"params": softmax_params(), "loss_fn": loss, "evaluate_every": 3} | options
    return fl.run(algorithm, DATA, sampler=sampler, rounds=rounds, key=KEY, test=test, progress=False, **options)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def same_bits(a, b):
    plain = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(plain(x), plain(y), strict=True), a, b)
