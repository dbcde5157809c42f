"""The run in segments that is tried for what it records, when it stops, and what it leaves in its folder."""

import json

import jax
import numpy as np
import optax
from problems import softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl

DATA, TEST, KEY = softmax_data(), softmax_data((3, 0, 4, 1, 6, 2, 5), seed=1, empty=True), jax.random.key(0)
SAMPLER = fl.sampling.uniform(3)
TRACED = []  # one entry whenever the loss is traced


def loss(params, batch, key):
    TRACED.append(key)
    return softmax_loss(params, batch, key)


def fedavg(rate=0.1):
    batches = fl.Batches(4, shuffle=False)
    return fl.algorithms.fedavg(loss, optax.sgd(rate), batches=batches, population=7, engine=fl.sequential())


FEDAVG = fedavg()  # one algorithm, so one compiled program a segment length


def run(rounds=7, algorithm=FEDAVG, sampler=SAMPLER, test=TEST, **options):
    """Segments of 3, 3 and 1 rounds: where lengths do not matter, let there be no others."""
    options = {"params": softmax_params(), "loss_fn": loss, "evaluate_every": 3} | options
    return fl.run(algorithm, DATA, sampler=sampler, rounds=rounds, key=KEY, test=test, progress=False, **options)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def same_bits(a, b):
    plain = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(plain(x), plain(y), strict=True), a, b)
