"""Partitions by other leaves than labels: natural ids and groups of them, a number, anything in the place of labels."""

import numpy as np
import pytest
from partitions import AGES, LABELS, WRITERS, assert_cover, deal, sizes

from fedjax_lite.data import partition
from fedjax_lite.data.arrange import Part, arrange
from fedjax_lite.data.deal import deal as deal_examples

IDS = np.array(["w10", "w9", "w10", "w2", "w9", "w10", "w3"])


def test_natural_clients_are_sorted_by_id():
    parts = deal(partition.natural(IDS), np.zeros(7))
    assert [IDS[part].tolist() for part in parts] == [["w10"] * 3, ["w2"], ["w3"], ["w9"] * 2]
    for numbers in (np.array([10, 9, 10, 2]), np.array(["10", "9", "10", "2"])):
        assert [part.tolist() for part in deal(partition.natural(numbers), np.zeros(4))] == [[3], [1], [0, 2]]


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("allow-smaller", [["w10", "w2", "w3"], ["w9"]]),
        ("allow-bigger", [["w10", "w2", "w3", "w9"]]),
        ("drop-remainder", [["w10", "w2", "w3"]]),
    ],
)
def test_groups_of_three(mode, expected):
    parts = deal(partition.natural(IDS, 3, mode), np.zeros(7))
    assert [np.unique(IDS[part]).tolist() for part in parts] == expected
    assert sum(sizes(parts)) == np.isin(IDS, np.concatenate(expected)).sum()


def test_groups_that_do_not_fit():
    message = r"natural: group_size=3 with mode 'strict' does not fit 4 ids: choose another size or mode"
    with pytest.raises(ValueError, match=message):
        deal(partition.natural(IDS, 3, "strict"), np.zeros(7))
    assert len(deal(partition.natural(IDS, 2, "strict"), np.zeros(7))) == 2
    for mode in ("allow-bigger", "drop-remainder", "strict"):
        with pytest.raises(ValueError, match=f"group_size=5 with mode '{mode}' does not fit 4 ids"):
            deal(partition.natural(IDS, 5, mode), np.zeros(7))
    assert sizes(deal(partition.natural(IDS, 5), np.zeros(7))) == [7]
    with pytest.raises(ValueError, match="natural: ids hold NaN: every example needs an id"):
        deal(partition.natural([1.0, np.nan]), np.zeros(2))


def test_a_partition_by_other_values_deals_by_them():
    """And so equals the inner one that is handed these values."""
    for inner in (partition.shards(5), partition.dirichlet(5, 1.0), partition.labels_per_client(5, 8)):
        assert all(map(np.array_equal, deal(partition.by(WRITERS, inner)), deal(inner, WRITERS)))
    with pytest.raises(ValueError, match="by: values are 1000, there are 5 examples: give one an example"):
        deal(partition.by(WRITERS, partition.iid(2)), np.zeros(5))
    for inner in (3, partition.natural("writer")):
        with pytest.raises(TypeError, match=r"by: inner must be a partition by labels, such as fl.partition.iid\(clients=10\), got"):
            partition.by("y", inner)
        for make in (lambda inner: partition.inner_dirichlet(inner, 1.0), lambda inner: partition.label_mix(inner, [[1, 1]])):
            with pytest.raises(TypeError, match="(inner_dirichlet|label_mix): inner must be a partition by labels"):
                make(inner)


def test_continuous_ranges_are_disjoint_and_blend_with_noise():
    ranges = [AGES[part] for part in deal(partition.continuous(8, AGES))]
    assert all(a.max() <= b.min() for a, b in zip(ranges, ranges[1:], strict=False))
    # the sorted score correlates with the number by s / sqrt(s^2 + (1 - s)^2)
    numbers = np.random.default_rng(1).normal(3, 10, 5000)
    for strictness in (0.0, 0.5, 0.8):
        place = np.empty(5000)
        place[np.concatenate(deal(partition.continuous(5000, numbers, strictness), np.zeros(5000)))] = np.arange(5000)
        ranks = np.argsort(np.argsort(numbers))
        pearson = strictness / np.hypot(strictness, 1 - strictness)
        assert abs(np.corrcoef(place, ranks)[0, 1] - 6 / np.pi * np.arcsin(pearson / 2)) < 0.05  # Spearman's of two normals


def test_continuous_refuses_what_has_no_order():
    with pytest.raises(ValueError, match="continuous: values must be finite numbers: clean or drop"):
        deal(partition.continuous(2, [1.0, np.nan, 2.0]), np.zeros(3))
    with pytest.raises(ValueError, match="continuous: values must be finite numbers"):
        deal(partition.continuous(2, ["a", "b", "c"]), np.zeros(3))
    with pytest.raises(ValueError, match="continuous: values are all 4.0: deal by another leaf, or set strictness=0"):
        deal(partition.continuous(2, [4.0, 4.0]), np.zeros(2))
    assert_cover(deal(partition.continuous(2, [4.0, 4.0], 0), np.zeros(2)), 2)


def test_a_leaf_of_the_examples_is_handed_in_place_of_y():
    examples = {"x": AGES, "y": LABELS, "writer": WRITERS}
    dealt = deal_examples(examples, partition.natural("writer"), seed=0, test=0.2)
    assert [np.unique(dealt.train.client(k)["writer"]).tolist() for k in range(20)] == [[k] for k in range(20)]
    assert dealt.test.size.tolist() == [10] * 20
    by_age = deal_examples(examples, partition.continuous(4, "x"), seed=0, test=0).train
    assert all(float(by_age.client(k)["x"].max()) <= float(by_age.client(k + 1)["x"].min()) for k in range(3))
    with pytest.raises(ValueError, match="partition deals by 'author', which the examples do not have; they have 'x', 'y', 'writer'"):
        deal_examples(examples, partition.natural("author"), seed=0, test=0)


def test_whose_examples_are_is_the_leaf_client_of_a_file():
    """Which no client's examples get."""
    part = Part({"x": np.arange(7.0), "y": np.zeros(7, int)}, np.array([0, 1, 0, 2, 1, 0, 3]), ["w10", "w9", "w2", "w3"])
    data = arrange(part, partition=partition.natural("client", group_size=2), share=0)
    assert [data.train.client(k)["x"].tolist() for k in range(2)] == [[0, 2, 3, 5], [1, 4, 6]]
    assert set(data.train.examples) == {"x", "y"}
    with pytest.raises(ValueError, match="partition deals by 'client', which the examples do not have; they have 'x', 'y'"):
        arrange(part._replace(client=None), partition=partition.natural("client"))
