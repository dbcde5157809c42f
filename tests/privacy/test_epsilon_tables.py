"""Epsilons and noise of the Gaussian mechanism against reference tables and an independent formula."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from accounting import COARSE, steps_of

from fedjax_lite import privacy
from fedjax_lite.privacy.gaussian import INTERVAL, MOST_LOSSES, _losses
from fedjax_lite.sampling.participation import Participation

# sampling rate, noise multiplier, rounds, delta: epsilon by RDP, by PLD
TABLE = [
    (0.01, 1.0, 1000, 1e-5, 2.101367, 1.828244),
    (0.01, 0.7, 500, 1e-6, 5.153499, 4.352508),
    (0.001, 0.5, 2000, 1e-7, 6.744272, 5.609430),
    (0.05, 2.0, 100, 1e-5, 1.222196, 1.097232),
    (0.1, 1.0, 200, 1e-5, 11.063104, 9.971275),
    (1.0, 4.0, 10, 1e-5, 3.617100, 3.341410),
    (1.0, 1.0, 1, 1e-5, 4.728507, 4.377178),
]
# epsilon, delta, sampling rate, rounds: noise multiplier by RDP, by PLD
NOISE = [
    (1.0, 1e-5, 0.01, 1000, 1.513122, 1.414631),
    pytest.param(8.0, 1e-6, 0.01, 500, 0.602711, 0.572581, marks=pytest.mark.deep),
    pytest.param(4.0, 1e-5, 0.05, 100, 1.004565, 0.939450, marks=pytest.mark.deep),
]


@pytest.fixture(params=[COARSE, pytest.param(INTERVAL, marks=pytest.mark.deep)])
def interval(request):
    """The steps in which privacy losses are computed: ten times the usual, and as they are."""
    with steps_of(request.param):
        yield request.param


@pytest.mark.parametrize(("rate", "z", "rounds", "delta", "rdp", "pld"), TABLE)
def test_epsilon_is_that_of_the_table(interval, rate, z, rounds, delta, rdp, pld):
    assert privacy.epsilon(z, rate, rounds, delta, "rdp") == pytest.approx(rdp, rel=1e-6)
    assert privacy.epsilon(z, rate, rounds, delta) == pytest.approx(pld, rel=1e-3)


@pytest.mark.parametrize(("rate", "z", "rounds", "delta", "pld"), [(1.0, 4.0, 10, 1e-5, 3.341410), (0.05, 2.0, 100, 1e-5, 1.097232)])
def test_losses_are_by_default_as_fine_as_six_digits(rate, z, rounds, delta, pld):
    assert privacy.epsilon(z, rate, rounds, delta) == pytest.approx(pld, rel=1e-6)


@pytest.mark.parametrize("z", [0.05, *(pytest.param(z, marks=pytest.mark.deep) for z in (0.01, 0.2, 0.5, 3.0))])
def test_one_round_of_any_noise_is_that_of_the_exact_formula(z):
    """delta = Phi(1 / (2 z) - epsilon z) - e^epsilon Phi(-1 / (2 z) - epsilon z) (Balle and Wang 2018), solved for epsilon in logarithms;
    losses are few however little the noise."""

    def excess(epsilon):
        first = scipy.special.log_ndtr(0.5 / z - epsilon * z)
        second = epsilon + scipy.special.log_ndtr(-0.5 / z - epsilon * z)
        return first + math.log1p(-math.exp(second - first)) - math.log(1e-5)

    exact = scipy.optimize.brentq(excess, 1e-3, 1 / z**2 + 20 / z)
    found = privacy.epsilon(z, 1.0, 1, 1e-5)
    assert exact * (1 - 1e-9) <= found == pytest.approx(exact, rel=1e-5 if z > 0.01 else 1e-3)
    size = _losses(Participation("poisson", rate=1.0), 0, z, False)._pmf_remove.size
    assert size < 2 * MOST_LOSSES


@pytest.mark.parametrize("steps", [COARSE, pytest.param(INTERVAL, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("epsilon", "delta", "rate", "rounds", "rdp", "pld"), NOISE)
def test_noise_for_an_epsilon_is_that_of_the_table(steps, epsilon, delta, rate, rounds, rdp, pld):
    assert privacy.calibrate(epsilon, rate, rounds, delta, "rdp") == pytest.approx(rdp, rel=1e-4)
    with steps_of(steps):
        z = privacy.calibrate(epsilon, rate, rounds, delta)
        assert z == pytest.approx(pld, rel=1e-3)
        assert privacy.epsilon(z, rate, rounds, delta) == pytest.approx(epsilon, rel=1e-3)


def test_rdp_is_that_of_the_binomial_formula():
    """At whole orders a: log sum_j C(a, j) q^j (1-q)^(a-j) exp(j (j-1) / (2 z^2)) / (a - 1), and the smallest epsilon over them."""
    q, z, rounds, delta = 0.01, 1.0, 1000, 1e-5
    orders = np.arange(2, 64)
    spent = []
    for a in orders:
        j = np.arange(a + 1)
        terms = np.log(scipy.special.comb(a, j)) + j * math.log(q) + (a - j) * math.log(1 - q) + j * (j - 1) / (2 * z**2)
        spent.append(rounds * scipy.special.logsumexp(terms) / (a - 1))
    bounds = np.array(spent) + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    assert privacy.epsilon(z, q, rounds, delta, "rdp") == pytest.approx(bounds.min(), rel=4e-3)  # fractional orders find a little less
    assert privacy.epsilon(z, q, rounds, delta, "rdp") <= bounds.min()


def test_no_rounds_give_nothing_away():
    assert privacy.epsilon(1.0, 0.1, 0, 1e-5, "rdp") == privacy.epsilon(1.0, 0.1, 0, 1e-5) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": 0.0}, "delta must be between 0 and 1, got 0.0"),
        ({"delta": 1.0}, "delta must be"),
        ({"sampling_rate": 0.0}, r"sampling_rate must be in \(0, 1\], got 0.0"),
        ({"sampling_rate": 1.5}, "sampling_rate must be"),
        ({"rounds": -1}, "rounds must be a whole number of at least 0, got -1"),
        ({"accountant": "prv"}, 'accountant must be "pld" or "rdp", got \'prv\''),
    ],
)
@pytest.mark.parametrize("function", [privacy.epsilon, privacy.calibrate])
def test_bad_numbers_are_refused(function, change, message):
    with pytest.raises(ValueError, match=message):
        function(
            **(
                {"sampling_rate": 0.1, "rounds": 10, "delta": 1e-5}
                | ({"noise_multiplier": 1.0} if function is privacy.epsilon else {"target_epsilon": 1.0})
                | change
            )
        )


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf])
def test_a_target_that_is_none_is_refused(target):
    with pytest.raises(ValueError, match="target_epsilon must be positive and finite"):
        privacy.calibrate(target, 0.1, 10, 1e-5)


def test_without_noise_no_epsilon_is_finite():
    with pytest.raises(ValueError, match="noise_multiplier must be positive and finite, got 0.0"):
        privacy.epsilon(0.0, 0.1, 10, 1e-5)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dp_accounting", None)
    with pytest.raises(ValueError, match=r'pip install "fedjax_lite\[privacy\]"'):
        privacy.epsilon(1.23, 0.1, 10, 1e-5)
