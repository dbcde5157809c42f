"""The distance of clients' labels from the population's, against a loop from its definition."""

import numpy as np
import pytest

import fedjax_lite as fl


def test_it_is_the_total_variation_between_distributions():
    data = fl.data.digits(fl.partition.dirichlet(8, 0.3), test=0).train
    everyone = np.asarray(data.examples["y"])
    expected = []
    for k in range(8):
        y = np.asarray(data.client(k)["y"])
        expected.append(0.5 * sum(abs(np.mean(y == label) - np.mean(everyone == label)) for label in range(10)))
    np.testing.assert_allclose(fl.data.label_skew(data), expected, atol=1e-12)


def test_its_ends():
    """Everyone alike: 0. One label each of K: 1 - 1 / K. No examples: NaN. Zhao et al. count it twice: 1.8 of 10."""
    alike = fl.FederatedData.from_clients([{"y": np.arange(10)}] * 3)
    assert fl.data.label_skew(alike).tolist() == [0, 0, 0]
    apart = fl.FederatedData.from_clients([{"y": np.full(5, k)} for k in range(10)])
    np.testing.assert_allclose(2 * fl.data.label_skew(apart), 1.8)
    empty = fl.FederatedData.from_clients([{"y": np.arange(2)}, {"y": np.arange(0)}], allow_empty=True)
    np.testing.assert_array_equal(fl.data.label_skew(empty), [0, np.nan])
    with pytest.raises(ValueError, match='no whole numbers "y" as labels'):
        fl.data.label_skew(fl.FederatedData.from_clients([{"x": np.ones(2)}]))
