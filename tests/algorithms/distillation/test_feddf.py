"""FedDF against its loop in NumPy."""

import jax
import numpy as np
import optax
import scipy.special
from oracles import softmax_regression_gradient, weighted_mean
from problems import CLASSES, FEATURES, SIZES, softmax_data

import fedjax_lite as fl
from fedjax_lite import distill
from fedjax_lite.models import Model

FIRST, WIDTHS = 4, (FEATURES, 2)  # clients of the first family; how many features each family looks at


def test_a_round_averages_each_family_by_examples_and_teaches_it_what_all_say(x64):
    rng, data = np.random.default_rng(5), softmax_data()
    public, params = rng.normal(size=(9, FEATURES)), [rng.normal(size=(width, CLASSES)) for width in WIDTHS]
    models = [Model(lambda key, example: (), lambda params, batch, key, w=width: batch["x"][:, :w] @ params) for width in WIDTHS]
    built = fl.algorithms.feddf(
        models, [FIRST, len(SIZES) - FIRST], params, optax.sgd(0.3), {"x": public}, distill.lessons(optax.sgd(0.5), 1, batch_size=9),
        batches=fl.Batches(None), engine=fl.padded(),
    )  # fmt: skip

    @jax.jit
    def round(data, params):
        state = built.init(params, jax.random.key(0))
        return built.params(built.round(state, data, fl.sampling.everyone()(fl.round_key(state), data.size, 0))[0])

    trained = []
    for k in range(len(SIZES)):
        family, mine = int(k >= FIRST), jax.tree.map(np.asarray, data.client(k))
        x = mine["x"][:, : WIDTHS[family]]
        trained.append(params[family] - 0.3 * softmax_regression_gradient(params[family], x, mine["y"]))
    said = scipy.special.softmax(np.mean([public[:, : len(W)] @ W for W in trained], axis=0), axis=-1)
    groups = slice(0, FIRST), slice(FIRST, None)
    for found, width, group in zip(round(data, tuple(params)), WIDTHS, groups, strict=True):
        average, seen = weighted_mean(np.stack(trained[group]), SIZES[group]), public[:, :width]
        lesson = seen.T @ (scipy.special.softmax(seen @ average, axis=-1) - said) / len(seen)
        np.testing.assert_allclose(found, average - 0.5 * lesson, rtol=1e-6)
