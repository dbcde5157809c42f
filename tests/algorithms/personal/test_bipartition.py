"""Cuts in two against all cuts there are, and against scipy's hierarchical clustering."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.cluster.hierarchy

from fedjax_lite.algorithms.personal.bipartition import complete_linkage, single_linkage

pytestmark = pytest.mark.usefixtures("x64")
CLIENTS, FEATURES, CASES = 8, 5, 40
CUTS = {name: jax.jit(jax.vmap(cut)) for name, cut in (("single", single_linkage), ("complete", complete_linkage))}


def cases():
    """Random similarities, with members that are not all, some not two."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(CASES, CLIENTS, FEATURES))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    members = rng.random((CASES, CLIENTS)) < rng.uniform(0.3, 1, size=(CASES, 1))
    members[:4] = np.arange(CLIENTS) < np.array([CLIENTS, 2, 1, 0])[:, None]
    return vectors @ vectors.transpose(0, 2, 1), members


def across(similarity, side, members):
    """The largest similarity between the two sides."""
    return similarity[np.ix_(side, members & ~side)].max()


def best(similarity, members):
    """The least that it can be, of all cuts."""
    ids = np.flatnonzero(members)
    sides = (np.isin(np.arange(CLIENTS), some) for size in range(1, len(ids)) for some in itertools.combinations(ids[1:], size))
    return min(across(similarity, side, members) for side in sides)


@pytest.mark.parametrize("linkage", CUTS)
def test_cuts_are_the_best_or_those_of_complete_linkage(linkage):
    similarity, members = cases()
    optimal = []
    for s, m, side in zip(similarity, members, np.asarray(CUTS[linkage](similarity, members)), strict=True):
        assert not (side & ~m).any()
        if m.sum() < 2:
            assert not side.any()
            continue
        assert side.any() and not side[np.argmax(m)]  # the first member is on the other side
        optimal.append(abs(across(s, side, m) - best(s, m)) < 1e-12)
        ids = np.flatnonzero(m)
        condensed = [1 - s[i, j] for i, j in itertools.combinations(ids, 2)]
        tree = scipy.cluster.hierarchy.linkage(condensed, linkage)
        label = scipy.cluster.hierarchy.fcluster(tree, 2, "maxclust")
        np.testing.assert_array_equal(side[ids], label != label[0])
    assert all(optimal) if linkage == "single" else not all(optimal)


@pytest.mark.parametrize("linkage", CUTS)
def test_of_equals_the_lowest_stay_together(linkage):
    """All alike: a cut all the same, of one client for a tree of equal edges; two pairs that are equals of each other: the pairs."""
    members = np.ones((1, 4), bool)
    alike = CUTS[linkage](np.ones((1, 4, 4)), members)[0].tolist()
    assert alike == ([False, True, True, True] if linkage == "single" else [False, False, False, True])
    pairs = np.kron(np.eye(2), np.ones((2, 2)))[None]
    assert CUTS[linkage](jnp.asarray(pairs), members)[0].tolist() == [False, False, True, True]
