"""Mixing matrices by their known eigenvalues and degrees, and what is no mixing matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.mixing import Drawn, check_mixing, complete, gossip, metropolis, random_geometric, ring, spectral_gap, torus

CASES = {
    "ring": (ring(8), (1 + 2 * np.cos(2 * np.pi * np.arange(8) / 8)) / 3),
    "torus": (
        torus(3, 5),
        np.add.outer(2 * np.cos(2 * np.pi * np.arange(3) / 3), 1 + 2 * np.cos(2 * np.pi * np.arange(5) / 5)).ravel() / 5,
    ),
    "complete": (complete(6), np.array([1.0, 0, 0, 0, 0, 0])),
    "path": (metropolis([[0, 1, 0], [1, 0, 1], [0, 1, 0]]), np.array([1, 2 / 3, 0])),
    "table L3": (np.full((3, 3), 0.25) + 0.25 * np.eye(3), np.array([1, 0.25, 0.25])),
}


@pytest.mark.parametrize("name", CASES)
def test_eigenvalues_are_those_of_the_graph(name):
    matrix, expected = CASES[name]
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(matrix)), np.sort(expected), atol=1e-12)
    assert np.isclose(spectral_gap(matrix), 1 - np.sort(np.abs(expected))[-2])
    assert check_mixing("test", matrix, len(matrix)) is not None


@pytest.mark.parametrize("make", [ring, complete, lambda n: torus(1, n), lambda n: torus(n, 1)])
def test_few_nodes(make):
    assert make(1).tolist() == [[1.0]]
    np.testing.assert_allclose(make(2), 0.5)
    np.testing.assert_allclose(make(3), 1 / 3)


def test_a_torus_of_two_rows_has_each_neighbour_once():
    assert (torus(2, 4) > 0).sum(axis=1).tolist() == [4] * 8


def test_weights_of_a_random_graph_are_those_of_its_degrees():
    matrix = random_geometric(12, 0.5, seed=3)
    edges = (matrix > 0) & ~np.eye(12, dtype=bool)
    degree = edges.sum(axis=1)
    assert len(set(degree)) > 2
    for i, j in np.argwhere(edges):
        assert np.isclose(matrix[i, j], 1 / (1 + max(degree[i], degree[j])))
    np.testing.assert_allclose(matrix.sum(axis=0), 1)
    assert 0 < spectral_gap(matrix) < 1


@pytest.mark.deep
def test_gossip_pairs_everyone_and_each_pair_alike():
    drawn = jax.vmap(gossip(4).draw)(jax.random.split(jax.random.key(0), 3000))
    np.testing.assert_array_equal(drawn, jnp.swapaxes(drawn, 1, 2))
    assert set(np.unique(drawn)) == {0.0, 0.5} and (np.asarray(drawn).sum(axis=2) == 1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), np.full((4, 4), 1 / 6) + np.eye(4) / 3, atol=0.03)
    alone = np.asarray(jax.vmap(gossip(5).draw)(jax.random.split(jax.random.key(1), 50)))
    assert ((alone == 1).sum(axis=(1, 2)) == 1).all()


def test_refusals():
    with pytest.raises(ValueError, match="random_geometric: n=9, radius=0.05, seed=0 is a graph in parts: raise radius"):
        random_geometric(9, 0.05)
    with pytest.raises(ValueError, match="ring: n must be an int of at least 1, got 0"):
        ring(0)
    with pytest.raises(ValueError, match="metropolis: edges must be a symmetric table"):
        metropolis([[0, 1], [0, 0]])
    with pytest.raises(
        ValueError, match=r"x: mixing must be \[population, population\] = \[3, 3\], got \(4, 4\), such as fl.mixing.ring\(3\)"
    ):
        check_mixing("x", ring(4), 3)
    with pytest.raises(ValueError, match=r"got 5, such as"):
        check_mixing("x", gossip(5), 3)
    with pytest.raises(ValueError, match="x: row 1 of mixing sums to 0.9"):
        check_mixing("x", [[0.5, 0.5], [0.4, 0.5]], 2)
    for wrong in (-0.5, np.nan):
        with pytest.raises(ValueError, match="x: mixing must not be negative, got (-0.5|nan) in row 0, column 1"):
            check_mixing("x", [[1.5, wrong], [wrong, 1.5]], 2)
    directed = [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.25, 0.25, 0.5]]
    with pytest.raises(ValueError, match="x: mixing must be symmetric, got 0.5 in row 0, column 1 and 0 across: .*symmetric=False"):
        check_mixing("x", directed, 3)
    np.testing.assert_array_equal(check_mixing("x", directed, 3, symmetric=False), directed)
    assert isinstance(check_mixing("x", fl.mixing.gossip(3), 3), Drawn)
