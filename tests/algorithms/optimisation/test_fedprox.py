"""FedProx: minibatches, stragglers, and no second copy of the model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from oracles import softmax_regression_gradient
from problems import SIZES, softmax_data, softmax_loss, softmax_params
from rounds import advanced, compiled

import fedjax_lite as fl

RATE, MU, BATCH = 0.3, 0.5, 4


def built(make=fl.algorithms.fedprox, **own):
    batches = fl.Batches(BATCH, epochs=2, shuffle=False)
    return make(softmax_loss, optax.sgd(RATE), batches=batches, population=len(SIZES), **own)


def test_stragglers_count_with_the_steps_that_they_took(x64):
    """Two epochs of minibatches, cut off after three steps; by hand."""
    data, start, most, cohort = softmax_data(), np.asarray(softmax_params()), 3, (4, 2, 1, 6)
    algorithm = built(mu=MU)
    state = compiled(algorithm)[0](softmax_params(), jax.random.key(0))
    state, _ = advanced(algorithm, data, state, (cohort,), steps=[most] * len(cohort))
    ends, changes = np.cumsum([0, *SIZES]), []
    for k in cohort:
        x, y = (np.asarray(data.examples[name][ends[k] : ends[k + 1]]) for name in "xy")
        w = start
        for first in [*range(0, len(x), BATCH), *range(0, len(x), BATCH)][:most]:
            rows = slice(first, first + BATCH)
            w = w - RATE * (softmax_regression_gradient(w, x[rows], y[rows]) + MU * (w - start))
        changes.append(w - start)
    expected = start + np.average(changes, axis=0, weights=[SIZES[k] for k in cohort])
    np.testing.assert_allclose(algorithm.params(state), expected, rtol=1e-12, atol=1e-12)


def test_what_the_server_sent_is_there_once_and_not_in_every_lane():
    def held(algorithm):
        data = softmax_data()
        state = jax.eval_shape(algorithm.init, softmax_params(), jax.random.key(0))
        cohort = fl.sampling.cohort(jax.random.key(0), data.size, jnp.arange(len(SIZES)))
        shapes = jax.eval_shape(algorithm.layout.stacks, state, data, cohort)
        return sum(x.size for x in jax.tree.leaves(shapes["lanes"]))

    assert held(built(mu=MU)) == held(built(fl.algorithms.fedavg))
