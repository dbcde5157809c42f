"""Mixing matrices of graphs by Metropolis' weights, symmetric and doubly stochastic; and pairs drawn anew in every round."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fedjax_lite.base import Key
from fedjax_lite.refuse import integer, positive

ROUNDING = 1e-6  # by which a matrix in float32 may miss


class Drawn(NamedTuple):
    """A mixing matrix that is drawn in every round."""

    draw: Callable[[Key], Array]  # key -> [n, n]
    n: int


def ring(n: int) -> np.ndarray:
    """Each node and its two neighbours on a circle, 1/3 each.

    Args:
        n: the number of nodes; 2 and 1 are all there is of a circle.

    >>> ring(4).round(2)[0].tolist()
    [0.33, 0.33, 0.0, 0.33]
    """
    integer("ring", "n", n, least=1)
    node = np.arange(n)
    return metropolis(_edges(n, zip(node, np.roll(node, 1), strict=True)))


def torus(rows: int, columns: int) -> np.ndarray:
    """Each node of a grid and its four neighbours, the first row beside the last and the first column beside the last.

    Args:
        rows, columns: of the grid; node i is in row i // columns.

    >>> torus(3, 3).shape, float(torus(3, 3)[0, 0].round(2))
    ((9, 9), 0.2)
    """
    integer("torus", "rows", rows, least=1)
    integer("torus", "columns", columns, least=1)
    node = np.arange(rows * columns).reshape(rows, columns)
    beside = [pair for axis in (0, 1) for pair in zip(node.ravel(), np.roll(node, 1, axis).ravel(), strict=True)]
    return metropolis(_edges(rows * columns, beside))


def complete(n: int) -> np.ndarray:
    """All nodes with all: 1/n everywhere, the mean that a server would take.

    >>> complete(4)[0].tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    integer("complete", "n", n, least=1)
    return np.full((n, n), 1 / n)


def random_geometric(n: int, radius: float, seed: int = 0) -> np.ndarray:
    """Nodes at random places of the unit square, neighbours where they are no further apart than a radius.

    Args:
        n: the number of nodes.
        radius: from sqrt(log n / (pi n)) on such graphs are mostly connected.
        seed: of the places.

    Raises:
        ValueError: for a graph in several parts, whose models would never agree.

    >>> random_geometric(10, 0.5, seed=1).sum(axis=0).round(6).tolist() == [1.0] * 10
    True
    """
    integer("random_geometric", "n", n, least=1)
    positive("random_geometric", "radius", radius)
    places = np.random.default_rng(seed).uniform(size=(n, 2))
    edges = np.linalg.norm(places[:, None] - places[None], axis=-1) <= radius
    if not _connected(edges):
        raise ValueError(f"random_geometric: n={n}, radius={radius}, seed={seed} is a graph in parts: raise radius, or take another seed")
    return metropolis(edges)


def gossip(n: int) -> Drawn:
    """Randomised pairwise averaging: in every round the nodes are paired at random, and each takes the mean with its mate.

    Args:
        n: the number of nodes; of an odd number one stays alone.

    >>> sorted(jnp.sum(gossip(5).draw(jax.random.key(0)) > 0, axis=0).tolist())
    [1, 2, 2, 2, 2]

    Source: Boyd et al. 2006, "Randomized gossip algorithms", of which each tick averages one pair.
    """
    integer("gossip", "n", n, least=1)

    def draw(key):
        order = jax.random.permutation(key, n)
        mate = jnp.arange(n).at[order[: n // 2 * 2]].set(order[: n // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1))
        return (jnp.eye(n) + jnp.eye(n)[mate]) / 2

    return Drawn(draw, n)


def metropolis(edges: Any) -> np.ndarray:
    """Metropolis' weights of a graph: W_ij = 1 / (1 + max(deg_i, deg_j)) of neighbours, and W_ii what is left of 1.

    Args:
        edges: bool `[n, n]`, symmetric; its diagonal does not count.

    Raises:
        ValueError: for edges that are not symmetric.

    >>> metropolis([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).round(2).tolist()
    [[0.67, 0.33, 0.0], [0.33, 0.33, 0.33], [0.0, 0.33, 0.67]]

    Source: Xiao, Boyd, Lall 2005, "A scheme for robust distributed sensor fusion based on average consensus".
    """
    edges = np.asarray(edges, bool)
    if edges.ndim != 2 or not np.array_equal(edges, edges.T):
        raise ValueError(f"metropolis: edges must be a symmetric table [n, n], got {edges.shape}: a neighbour's neighbour is oneself")
    edges = edges & ~np.eye(len(edges), dtype=bool)
    degree = edges.sum(axis=1)
    weights = np.where(edges, 1 / (1 + np.maximum(degree[:, None], degree[None])), 0.0)
    return weights + np.diag(1 - weights.sum(axis=1))


def spectral_gap(mixing: Any) -> float:
    """1 - |lambda_2|: by this share, and more, each mixing brings models nearer to their mean.

    Args:
        mixing: symmetric and doubly stochastic `[n, n]`.

    >>> round(spectral_gap(ring(4)), 6), spectral_gap(torus(1, 1))
    (0.666667, 1.0)
    """
    values = np.sort(np.abs(np.linalg.eigvalsh(np.asarray(mixing))))
    return float(1 - values[-2]) if len(values) > 1 else 1.0


def check_mixing(name: str, mixing: Any, n: int, symmetric: bool = True) -> Any:
    """Return a mixing matrix as an array, or what is drawn as it is; refuse other numbers than of `n` nodes' means.

    Args:
        name: the function that checks, for the error.
        mixing: `[n, n]`, or `Drawn`; a tracer's numbers are not known, and pass.
        n: the number of nodes.
        symmetric: False allows matrices that are not, with which the mean of the models may move in each mixing.

    Raises:
        ValueError: naming the first row that is at fault.

    >>> check_mixing("dpsgd", [[0.5, 0.5], [0.5, 0.4]], 2)
    Traceback (most recent call last):
    ValueError: dpsgd: row 1 of mixing sums to 0.9, and its nodes take a mean: make it 1
    """
    of = mixing.n if isinstance(mixing, Drawn) else np.shape(mixing)
    if of not in (n, (n, n)):
        raise ValueError(f"{name}: mixing must be [population, population] = {[n, n]}, got {of}, such as fl.mixing.ring({n})")
    if isinstance(mixing, Drawn | jax.core.Tracer):
        return mixing
    matrix = np.asarray(mixing, float)
    if not np.all(matrix >= 0):
        i, j = np.argwhere(~(matrix >= 0))[0]
        raise ValueError(f"{name}: mixing must not be negative, got {matrix[i, j]:g} in row {i}, column {j}")
    if (off := np.abs(matrix.sum(axis=1) - 1) > ROUNDING).any():
        i = int(np.argmax(off))
        raise ValueError(f"{name}: row {i} of mixing sums to {matrix[i].sum():.6g}, and its nodes take a mean: make it 1")
    if symmetric and np.abs(matrix - matrix.T).max() > ROUNDING:
        i, j = np.argwhere(np.abs(matrix - matrix.T) > ROUNDING)[0]
        raise ValueError(
            f"{name}: mixing must be symmetric, got {matrix[i, j]:.6g} in row {i}, column {j} and {matrix[j, i]:.6g} across: "
            "the mean of the models would move by itself; fl.mixing.metropolis(edges) makes weights, and symmetric=False allows others"
        )
    return matrix


def _edges(n: int, pairs: Any) -> np.ndarray:
    """Return the symmetric table of edges between pairs of nodes."""
    edges = np.zeros((n, n), bool)
    for i, j in pairs:
        edges[i, j] = edges[j, i] = True
    return edges


def _connected(edges: np.ndarray) -> bool:
    """Return whether every node is reached from node 0."""
    reached, before = np.arange(len(edges)) == 0, 0
    while reached.sum() > before:
        before = reached.sum()
        reached = reached | edges[reached].any(axis=0)
    return bool(reached.all())
