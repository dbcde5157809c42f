"""synthetic(alpha, beta) against a plain restatement of its equations, one example at a time."""

import numpy as np
import pytest

from fedjax_lite.data import synthetic


def restated(alpha, beta, clients, seed, iid):
    rng = np.random.default_rng(seed)
    sizes = [int(value) + 50 for value in rng.lognormal(4, 2, size=clients)]
    if iid:
        common = rng.normal(0, 1, size=(60, 10)), rng.normal(0, 1, size=10)
    else:
        u = [rng.normal(0, alpha) for _ in range(clients)]
        big_b = [rng.normal(0, beta) for _ in range(clients)]
    population = []
    for k in range(clients):
        if iid:
            v, (w, b) = np.zeros(60), common
        else:
            v = np.array([rng.normal(big_b[k], 1) for _ in range(60)])
            w = np.array([[rng.normal(u[k], 1) for _ in range(10)] for _ in range(60)])
            b = np.array([rng.normal(u[k], 1) for _ in range(10)])
        x = np.array([[v[j - 1] + np.sqrt(j**-1.2) * rng.standard_normal() for j in range(1, 61)] for _ in range(sizes[k])])
        y = [int(np.argmax([x[i] @ w[:, c] + b[c] for c in range(10)])) for i in range(sizes[k])]
        order = rng.permutation(sizes[k])
        population.append((x[order], np.array(y)[order], int(0.9 * sizes[k])))
    return population


@pytest.mark.parametrize(("alpha", "beta", "seed", "iid"), [(1.0, 1.0, 0, False), (0.0, 0.5, 1, False), (0.0, 0.0, 2, True)])
def test_it_follows_the_equations(alpha, beta, seed, iid):
    data = synthetic(alpha, beta, clients=3, seed=seed, iid=iid)
    for k, (x, y, kept) in enumerate(restated(alpha, beta, 3, seed, iid)):
        for part, rows in ((data.train, slice(0, kept)), (data.test, slice(kept, None))):
            np.testing.assert_allclose(part.client(k)["x"], x[rows], rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(part.client(k)["y"], y[rows])


@pytest.mark.deep
def test_sizes_of_the_reference_population():
    """Five seeds of the paper's setting, counted by another program: totals 4.4k-47k, largest 700-38k, medians 75-97."""
    train = [np.asarray(synthetic(seed=seed).train.size) for seed in range(5)]
    assert [len(size) for size in train] == [30] * 5
    totals, largest, medians = (sorted(map(count, train)) for count in (np.sum, np.max, np.median))
    assert (round(totals[0], -2), round(totals[-1], -3)) == (4400, 47000)
    assert (round(largest[0], -2), round(largest[-1], -3)) == (700, 38000)
    assert 75 <= medians[0] < 76 and 97 <= medians[-1] < 98


def test_types_seed_and_no_test_part():
    data = synthetic(clients=3, test=0)
    assert data.test is None
    assert data.example["x"].shape == (60,) and data.example["x"].dtype == np.float32 and data.example["y"].dtype == np.int32
    assert int(data.train.size.min()) >= 50
    assert synthetic(clients=3).train.fingerprint() == synthetic(clients=3).train.fingerprint()
    assert synthetic(clients=3).train.fingerprint() != synthetic(clients=3, seed=1).train.fingerprint()


def test_alpha_cannot_change_a_label():
    """W + u and b + u move all ten scores alike: alpha is kept for the authors' naming, and the docstring says so."""
    assert synthetic(0.0, 1.0, clients=5).train.fingerprint() == synthetic(1.0, 1.0, clients=5).train.fingerprint()


def test_iid_does_not_depend_on_alpha_and_beta():
    assert synthetic(0.0, 0.0, clients=3, iid=True).train.fingerprint() == synthetic(1.0, 2.0, clients=3, iid=True).train.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1.0}, "alpha is a standard deviation: it must be a finite number of at least 0, got -1.0"),
        ({"beta": float("nan")}, "beta is a standard deviation"),
        ({"alpha": float("inf")}, "alpha is a standard deviation"),
        ({"clients": 0}, "synthetic: clients must be a whole number of at least 1, got 0"),
        ({"test": 1.0}, r"test must be a fraction in \[0, 1\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthetic(**arguments)
