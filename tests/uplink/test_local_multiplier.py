"""The multiplier of local Gaussian noise: against other code, the formula, and what rounds add up to."""

import itertools
import math

import dp_accounting
import pytest
import scipy.integrate
import scipy.stats

import fedjax_lite as fl
from fedjax_lite.uplink.local_dp import _gaussian_multiplier


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 4.0, 30.0, 1000.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.1, 0.9])
def test_the_multiplier_is_twice_the_exact_one(epsilon, delta):
    z = _gaussian_multiplier(epsilon, delta)
    assert z == pytest.approx(2 * dp_accounting.get_sigma_gaussian(epsilon, delta), rel=1e-9)
    if epsilon < 100:  # the formula as it stands; above, its exponential overflows
        s, cdf = z / 2, scipy.stats.norm.cdf
        assert cdf(0.5 / s - epsilon * s) - math.exp(epsilon) * cdf(-0.5 / s - epsilon * s) == pytest.approx(delta, rel=1e-5)


def test_the_multiplier_for_epsilon_one_is_that_of_the_table():
    assert _gaussian_multiplier(1.0, 1e-5) == pytest.approx(2 * 3.730632, rel=1e-6)
    assert _gaussian_multiplier(4.377178096, 1e-5) == pytest.approx(2.0, rel=1e-8)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("delta", [1e-30, 1e-17, 1e-5, 0.9, 1 - 2**-53])
def test_the_multiplier_meets_delta_also_at_the_ends(epsilon, delta):
    """As the mean of max(0, 1 - e^(epsilon - L)) of the privacy loss L ~ N(1 / (2 s^2), 1 / s^2), which nothing cancels in."""
    s = _gaussian_multiplier(epsilon, delta) / 2
    mean = 1 / (2 * s) - epsilon * s  # of u = s (L - epsilon)
    top = max(0, mean) + 10
    ends = sorted((0, min(40 * s, top), max(0, mean), top))

    def density(u):
        return -math.expm1(-u / s) * math.exp(-((u - mean) ** 2) / 2) / math.sqrt(2 * math.pi)

    parts = [scipy.integrate.quad(density, *part, epsabs=0)[0] for part in itertools.pairwise(ends)]
    assert sum(parts) == pytest.approx(delta, rel=1e-6)


def test_the_noise_of_all_rounds_is_that_of_one_times_the_root_of_their_number():
    """T Gaussian releases are one with the multiplier / sqrt(T)."""
    z, rounds = _gaussian_multiplier(1.0, 1e-5), 4
    assert fl.privacy.calibrate(1.0, 1.0, rounds, 1e-5) == pytest.approx(math.sqrt(rounds) * z / 2, rel=1e-4)
    closed = dp_accounting.get_epsilon_gaussian(z / 2 / math.sqrt(rounds), 1e-5)
    assert fl.privacy.epsilon(z / 2, 1.0, rounds, 1e-5) == pytest.approx(closed, rel=1e-3)


@pytest.mark.deep
def test_uneven_rounds_add_up_as_the_docstring_says():
    z = _gaussian_multiplier(1.0, 1e-5)
    assert 2 * fl.privacy.calibrate(1.0, 1.0, 1, 1e-5) == pytest.approx(z, rel=1e-4)
    assert fl.privacy.epsilon(z / 2, 1.0, 1, 1e-5) == pytest.approx(1.0, rel=1e-3)
    uneven = [2 * z, 3 * z, z]  # of which the exact noise is that of the sum of their precisions
    together = sum(1 / one**2 for one in uneven) ** -0.5
    accountant = dp_accounting.pld.PLDAccountant()
    for one in uneven:
        accountant.compose(dp_accounting.GaussianDpEvent(one / 2))
    assert fl.privacy.epsilon(together / 2, 1.0, 1, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)
