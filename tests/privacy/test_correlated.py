"""Correlated noise against dense matrices, an explicit binary tree, jax-privacy and brute force."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from correlated_noise import DRAWN, KEYS, LIKE, W, banded_matrix, flat, square_root, tree_matrix
from jax_privacy.matrix_factorization import toeplitz as oracle

from fedjax_lite.privacy import correlated


def deeper(*values):
    return [pytest.param(*(value if isinstance(value, tuple) else [value]), marks=pytest.mark.deep) for value in values]


def streamed(strategy, rounds=64):
    def step(state, each):
        noise, state = strategy.draw(state, *each, LIKE)
        return state, noise

    return jax.jit(lambda keys: jax.lax.scan(step, strategy.init(LIKE), (jnp.arange(rounds), keys))[1])(KEYS[:rounds])


@pytest.mark.parametrize("bands", [1, 2, 8, *deeper(3, 64)])
def test_banded_noise_is_that_of_the_dense_inverse(bands):
    dense = np.linalg.solve(banded_matrix(64, square_root(bands)), W)
    np.testing.assert_allclose(flat(streamed(correlated.banded(64, bands))), dense, rtol=1e-5, atol=1e-5)


def test_banded_noise_is_that_of_jax_privacy():
    theirs = oracle.inverse_as_streaming_matrix(jnp.asarray(square_root(8), jnp.float32)) @ DRAWN["w"]
    np.testing.assert_allclose(streamed(correlated.banded(64, 8))["w"], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 37, *deeper(64)])
def test_the_noise_of_a_prefix_is_that_of_its_nodes_in_the_tree(rounds):
    noise = np.cumsum(flat(streamed(correlated.tree(rounds), rounds)), axis=0)
    for t in range(1, rounds + 1):
        first, nodes = 0, []  # the prefix cut into whole nodes, the largest first; each node's noise is drawn in the round that it ends
        for width in (64, 32, 16, 8, 4, 2, 1):
            if first + width <= t:
                first += width
                nodes.append(W[first - 1])
        assert len(nodes) == t.bit_count()  # so the prefix has that many variances
        np.testing.assert_allclose(noise[t - 1], sum(nodes), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.cumsum(np.linalg.solve(tree_matrix(rounds), W[:rounds]), axis=0), noise, rtol=1e-5, atol=1e-5)


def errors(matrix, squared):
    """Of the prefix sums, the largest and the mean over rounds of the noise's variance, for noise as large as the sensitivity."""
    each = squared * (np.cumsum(np.linalg.inv(matrix), axis=0) ** 2).sum(axis=1)
    return each.max(), each.mean()


@pytest.mark.parametrize(("rounds", "best", "tree", "plain"), [
    (200, (7.576, 6.710), (63, 33.07), (200, 100.5)),
    pytest.param(1024, (10.710, 9.671), (110, 55.01), (1024, 512.5), marks=pytest.mark.deep),
])  # fmt: skip
def test_errors_are_those_of_the_table(rounds, best, tree, plain):
    makers = correlated.banded(rounds, rounds), correlated.independent(), correlated.tree(rounds)
    full, same, nodes = (maker.sensitivity(1, 1, rounds) ** 2 for maker in makers)
    np.testing.assert_allclose(errors(banded_matrix(rounds, square_root(rounds)), full), best, rtol=1e-4)
    np.testing.assert_allclose(errors(np.eye(rounds), same), plain, rtol=1e-4)
    # The table counts a level more where the rounds are no power of two: a root that never ends, so is never released.
    counted = math.ceil(math.log2(rounds)) + 1
    np.testing.assert_allclose(errors(tree_matrix(rounds), counted), tree, rtol=1e-3)
    assert nodes == pytest.approx((tree_matrix(rounds) ** 2).sum(axis=0).max()) == pytest.approx({200: 8, 1024: 11}[rounds])


@pytest.mark.deep
def test_optimised_coefficients_have_the_least_error():
    correlated._optimised.cache_clear()
    jax.eval_shape(lambda: correlated.banded(200, 8, optimise=True).init(LIKE))  # a study builds its aggregators while tracing
    strategy, c = correlated.banded(200, 8, optimise=True), np.asarray(correlated._optimised(200, 8))
    matrix = banded_matrix(200, c / c[0])
    assert errors(matrix, strategy.sensitivity(1, 1, 200) ** 2)[1] == pytest.approx(16.835, rel=1e-3)
    np.testing.assert_allclose(flat(streamed(strategy)), np.linalg.solve(matrix[:64, :64], W), rtol=1e-4, atol=1e-4)


def test_sensitivities_are_those_of_the_reference():
    assert correlated.banded(64, 64).sensitivity(4, 16, 64) ** 2 == pytest.approx(15.6865, rel=1e-5)
    assert correlated.banded(64, 8).sensitivity(4, 16, 64) ** 2 == pytest.approx(6.8735, rel=1e-5)  # 4 ||c||^2
    assert correlated.independent().sensitivity(9, 3, 100) == pytest.approx(3)


@pytest.mark.parametrize(("bands", "times", "separation"), [(5, 2, 4), *deeper(*itertools.product((1, 5, 20), (1, 2, 7), (1, 4, 9)))])
def test_sensitivities_are_those_of_jax_privacy(bands, times, separation):
    found = oracle.minsep_sensitivity_squared(jnp.asarray(square_root(bands)), separation, times, n=20)
    assert correlated.banded(20, bands).sensitivity(times, separation, 20) ** 2 == pytest.approx(float(found), rel=1e-5)


def furthest(matrix, times, separation):
    """The norm of the columns' sum, over every choice of rounds for a client."""
    chosen = (c for k in range(times + 1) for c in itertools.combinations(range(len(matrix)), k))
    allowed = (list(c) for c in chosen if all(b - a >= separation for a, b in itertools.pairwise(c)))
    return max(np.linalg.norm(matrix[:, c].sum(axis=1)) for c in allowed)


@pytest.mark.parametrize(("times", "separation"), [(0, 1), (1, 1), (2, 1), (3, 1), (12, 1), (2, 3), (4, 3), (3, 4), (9, 5)])
def test_no_choice_of_rounds_moves_more(times, separation):
    for bands in (1, 2, 4, 12):
        exact = furthest(banded_matrix(12, square_root(bands)), times, separation)
        assert correlated.banded(12, bands).sensitivity(times, separation, 12) == pytest.approx(exact)
    for rounds in (5, 8, 11, 12):  # a tree for 16 serves fewer rounds too
        exact, bound = furthest(tree_matrix(rounds), times, separation), correlated.tree(16).sensitivity(times, separation, rounds)
        assert exact <= bound * (1 + 1e-9) and bound <= (1 if times < 2 else 1.5) * exact * (1 + 1e-9)
