"""Every partition: disjoint cover, a function of the seed, requests that cannot be met refused in words."""

from inspect import unwrap  # bad types must reach our own messages, as they do for users, not beartype's

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partitions import COVERING, EVERY, LABELS, SOME, assert_cover, deal, sizes

from fedjax_lite.data import partition


def test_every_name_is_asked():
    assert set(EVERY) == set(partition.__all__)


@pytest.mark.parametrize("name", COVERING)
def test_parts_are_a_disjoint_cover(name):
    parts = deal(COVERING[name])
    assert len(parts) == 20
    assert all(len(part) and np.issubdtype(part.dtype, np.integer) for part in parts)
    assert_cover(parts, 1000)


@pytest.mark.parametrize("name", SOME)
def test_parts_are_disjoint_and_as_large_as_asked(name):
    parts = deal(SOME[name])
    assert sizes(parts) == [10] * 20
    assert len(np.unique(np.concatenate(parts))) == 200


@pytest.mark.parametrize("name", EVERY)
def test_parts_are_a_function_of_the_seed(name):
    labels = LABELS.copy()
    first, again, other = deal(EVERY[name], labels), deal(EVERY[name], labels), deal(EVERY[name], labels, seed=1)
    assert all(map(np.array_equal, first, again))
    assert all(map(np.array_equal, first, other)) == (name == "natural")  # which draws nothing
    np.testing.assert_array_equal(labels, LABELS)


def cover_of_any_size(clients, extra, classes, seed):
    n = clients * 2 + extra
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    held = len(np.unique(labels))
    weights = rng.dirichlet(np.ones(held), clients) + 1
    covering = [
        partition.iid(clients),
        partition.dirichlet(clients, 100.0),
        partition.dirichlet_feddf(clients, 100.0, group_size=3, recut=True),
        partition.shards(clients),
        partition.similarity(clients, rng.random()),
        partition.continuous(clients, rng.normal(size=n), rng.random()),
        partition.lognormal_sizes(clients, 0.1),
        partition.inner_dirichlet(partition.iid(clients), 0.1),
        partition.natural(labels, group_size=3),
        partition.by(rng.integers(0, 4, n), partition.shards(clients)),
    ]
    for function in covering:
        assert_cover(deal(function, labels, seed), n)
    for function in (partition.iid(clients), partition.similarity(clients, 0.3), partition.continuous(clients, labels + rng.random(n))):
        assert sorted(sizes(deal(function, labels, seed))) == sorted(sizes(np.array_split(labels, clients)))
    for alpha, prior in ((0.1, "data"), (1e-6, "ones")):
        parts = deal(partition.dirichlet_hsu(clients, alpha, prior), labels, seed)
        assert set(sizes(parts)) == {n // clients}
        assert len(np.unique(np.concatenate(parts))) == clients * (n // clients)
    asked = rng.integers(1, 3, clients)
    parts = deal(partition.inner_dirichlet(partition.given_sizes(asked.tolist()), 1e-6), labels, seed)
    assert sizes(parts) == asked.tolist() and len(np.unique(np.concatenate(parts))) == asked.sum()
    try:
        assert_cover(deal(partition.class_shares(weights.tolist()), labels, seed), n)
    except ValueError as error:
        assert "brings no example" in str(error)


ANY_SIZE = st.integers(1, 30), st.integers(0, 200), st.integers(1, 12), st.integers(0, 2**32)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(*ANY_SIZE)
def test_cover_holds_for_any_size(clients, extra, classes, seed):
    cover_of_any_size(clients, extra, classes, seed)


@pytest.mark.deep
@settings(max_examples=1000, deadline=None)
@given(*ANY_SIZE)
def test_cover_holds_for_many_sizes(clients, extra, classes, seed):
    cover_of_any_size(clients, extra, classes, seed)


BY_LABEL = sorted(set(EVERY) - {"by", "continuous", "given_sizes", "growing_sizes", "iid", "lognormal_sizes", "natural", "quantity_skew"})


@pytest.mark.parametrize("name", BY_LABEL)
def test_several_labels_an_example_are_not_flattened(name):
    wrong = r"deals by one label an example, got labels of the shape \[1000, 2\]: give the one to deal by, such as labels\[:, 0\], or iid"
    with pytest.raises(ValueError, match=wrong):
        deal(EVERY[name], np.zeros((1000, 2), int))


@pytest.mark.parametrize("name", ["iid", "quantity_skew", "growing_sizes", "lognormal_sizes"])
def test_those_that_look_at_no_label_take_several(name):
    assert_cover(deal(EVERY[name], np.zeros((1000, 2), int)), 1000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: partition.iid(0), "iid: clients must be an int of at least 1, got 0"),
        (lambda: unwrap(partition.iid)(2.0), "clients must be an int"),
        (lambda: unwrap(partition.iid)(True), "clients must be an int"),
        (lambda: partition.dirichlet(0, 1.0), "dirichlet: clients"),
        (lambda: partition.dirichlet(5, 0.0), "alpha must be positive and finite, got 0.0"),
        (lambda: partition.dirichlet(5, float("nan")), "alpha must be positive and finite, got nan"),
        (lambda: partition.dirichlet(5, float("inf")), "got inf"),
        (lambda: partition.dirichlet(5, 1.0, min_size=0), "min_size must be an int of at least 1"),
        (lambda: partition.dirichlet_hsu(-1, 1.0), "dirichlet_hsu: clients"),
        (lambda: partition.dirichlet_hsu(5, -1.0), "dirichlet_hsu: alpha"),
        (lambda: partition.dirichlet_hsu(5, 1.0, "flat"), "dirichlet_hsu: prior must be one of 'data', 'ones', got 'flat'"),
        (lambda: partition.dirichlet_feddf(5, 1.0, group_size=0), "dirichlet_feddf: group_size must be an int of at least 1"),
        (lambda: partition.inner_dirichlet(partition.iid(5), 0.0), "inner_dirichlet: alpha"),
        (lambda: partition.shards(5, 0), "shards_per_client must be an int of at least 1"),
        (lambda: partition.shards(5, shard_size=0), "shard_size must be an int of at least 1"),
        (lambda: partition.similarity(5, 1.5), r"similarity: share must be in \[0, 1\], got 1.5"),
        (lambda: partition.labels_per_client(5, 0), "labels must be an int of at least 1"),
        (lambda: partition.labels_per_client(5, 2, "first"), "assignment must be one of 'first-deterministic', .*got 'first'"),
        (lambda: partition.power_law(5, at_least=0), "power_law: at_least must be an int of at least 1"),
        (lambda: partition.power_law(5, sigma=-1.0), "power_law: sigma must be finite and not negative, got -1.0"),
        (lambda: partition.quantity_skew(5, 0.0), "beta must be positive and finite"),
        (lambda: partition.lognormal_sizes(5, float("nan")), "lognormal_sizes: sigma"),
        (lambda: partition.growing_sizes(5, "cubic"), "growth must be one of 'linear', 'square', 'exponential', got 'cubic'"),
        (lambda: partition.given_sizes([3, 0]), "given_sizes: sizes must be one int of at least 1 a client, got 0"),
        (lambda: partition.given_sizes([]), r"sizes must be one int of at least 1 a client, got \[\]"),
        (lambda: partition.natural([1], group_size=0), "natural: group_size must be an int of at least 1"),
        (lambda: partition.natural([1], mode="drop"), "natural: mode must be one of 'allow-smaller', .*got 'drop'"),
        (lambda: partition.continuous(5, [1.0], -0.1), r"continuous: strictness must be in \[0, 1\], got -0.1"),
        (lambda: partition.class_shares([[1, -1]]), "shares must be finite and not negative, got -1.0 in row 0, column 1"),
        (lambda: partition.class_shares([[1, float("nan")]]), "got nan in row 0, column 1"),
        (lambda: partition.class_shares([[1, 0], [1, 0]]), "column 1 of shares is 0: every class needs a client"),
        (lambda: partition.class_shares([[1, 2], [1]]), "shares must be rows of numbers, all of one length"),
        (lambda: unwrap(partition.class_shares)([1, 2]), r"shares must be a matrix \[clients\]\[classes\], got the shape \[2\]"),
        (lambda: partition.label_mix(partition.iid(2), [[1, 0], [0, 0]]), "row 1 of mix is 0: every client needs a label"),
    ],
)
def test_bad_arguments_are_named_before_any_data_is_read(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "function",
    [
        partition.iid(6),
        partition.dirichlet(6, 1.0),
        partition.dirichlet(3, 1.0, min_size=2),
        partition.dirichlet_feddf(6, 1.0),
        partition.dirichlet_hsu(6, 1.0),
        partition.inner_dirichlet(partition.iid(6), 1.0),
        partition.shards(3),
        partition.similarity(6, 0.5),
        partition.continuous(6, np.arange(5.0)),
        partition.labels_per_client(6, 2),
        partition.power_law(3, 1, at_least=2),
        partition.quantity_skew(6, 1.0),
        partition.lognormal_sizes(6, 1.0),
    ],
)
def test_more_clients_than_examples(function):
    with pytest.raises(ValueError, match=r"clients=\d with at least .* need 6, there are 5: use fewer clients"):
        deal(function, np.arange(5) % 2)
