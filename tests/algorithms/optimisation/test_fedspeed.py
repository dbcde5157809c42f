"""FedSpeed against plain NumPy on ragged minibatches with missing clients; its identities and limits, and what it refuses."""

import numpy as np
import pytest
import quadratics
from quadratics import A4, A5, trajectory
from ragged import COHORTS, POPULATION, RATE, assert_same, gradient, start, states, taking_part

import fedjax_lite as fl

pytestmark = pytest.mark.usefixtures("x64")
OPTIMUM = {"A4": (-4 / 9, -2 / 7), "A5": (0.15625, -1 / 12)}


def build(problem=A5, **more):
    options = {"batches": quadratics.batches(problem), "population": problem.population, "learning_rate": 0.1}
    return fl.algorithms.fedspeed(quadratics.loss_fn, **options | more)


def by_hand(rho, lam, a, everyone):
    """The model and all clients' h_k after each round."""
    x = start()
    duals = np.zeros((POPULATION, *x.shape))
    for ids in COHORTS:
        models, sums = [], []
        for k, batches in taking_part(ids):
            y = x
            for batch in batches:
                g = gradient(y, batch)
                q = (1 - a) * g + a * gradient(y + rho * g / np.linalg.norm(g), batch)
                y = y - RATE * (q + lam * (duals[k] + y - x))
            duals[k] += y - x
            models.append(y)
            sums.append(y + duals[k])
        x = np.mean(models, axis=0) + duals.mean(axis=0) if everyone else np.mean(sums, axis=0)
        yield x, duals.copy()


@pytest.mark.parametrize("dual_mean", ["all", pytest.param("cohort", marks=pytest.mark.deep)])
def test_rounds_equal_the_numpy_loop(dual_mean):
    """A client that is missing or not finite keeps its h_k; the mean of the h_k is over the population."""
    found, params = states("fedspeed", rho=0.2, lam=0.5, a=0.7, dual_mean=dual_mean)
    expected = list(by_hand(0.2, 0.5, 0.7, dual_mean == "all"))
    assert_same([(params(state), state.own.dual) for state in found], expected)
    if dual_mean == "all":
        assert_same([state.server.dual for state in found], [duals.mean(axis=0) for _, duals in expected])


@pytest.mark.deep
def test_without_uphill_gradients_it_is_feddyn():
    """With alpha = lam and lambda_k = -lam h_k."""
    feddyn = fl.algorithms.feddyn(
        quadratics.loss_fn, learning_rate=0.1, alpha=0.3, batches=quadratics.batches(A5), population=A5.population
    )
    (found, x, _), (expected, y, _) = (trajectory(algorithm, A5) for algorithm in (build(rho=0.0, lam=0.3), feddyn))
    np.testing.assert_allclose(x, y, atol=1e-14)
    np.testing.assert_allclose(-0.3 * found.own.dual, expected.own.dual, atol=1e-14)


@pytest.mark.deep
def test_limits():
    """The optimum without uphill gradients, also where few take part; with them the point that they make of it."""
    np.testing.assert_allclose(trajectory(build(rho=0.0), A5, 2000)[1][-1], OPTIMUM["A5"], atol=1e-9)
    np.testing.assert_allclose(trajectory(build(A4, rho=0.05), A4, 3000)[1][-1], (-0.4530811, -0.3028777), atol=1e-7)
    assert not np.abs(trajectory(build(rho=0.0, dual_mean="cohort"), A5, 2000)[1][-1]).max() < 1e30  # the cohort's mean diverges


@pytest.mark.deep
def test_where_all_take_part_both_means_are_one():
    found, expected = (trajectory(build(A4, dual_mean=dual_mean), A4)[1] for dual_mean in ("cohort", "all"))
    np.testing.assert_allclose(found, expected, atol=1e-14)


REFUSED = {
    "rho": ({"rho": -1.0}, "fedspeed: rho must be finite and not negative, got -1.0"),
    "lam": ({"lam": 0}, "fedspeed: lam must be positive and finite, got 0"),
    "a": ({"a": 1.5}, r"fedspeed: a must be in \[0, 1\], got 1.5"),
    "dual_mean": ({"dual_mean": "both"}, 'fedspeed: dual_mean must be "all" .* or "cohort", got .both.'),
    "weights": ({"aggregator": fl.aggregators.weighted_mean()}, "fedspeed: h is the mean.*take fl.aggregators.mean"),
    "private": (
        {"aggregator": fl.aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=2)},
        "fedspeed: clients keep dual variables.*take a method without such state",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    arguments, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_an_uplink_that_hides_the_number_of_clients_is_refused():
    """Else the mean of the duals, and the model, would be NaN without a word."""
    with pytest.raises(ValueError, match="fedspeed: the server divides by the number of clients.*take a method that needs no such number"):
        trajectory(build(uplink=fl.uplink.local_gaussian(clip=1.0, noise_multiplier=0.1)), A5, 1)
