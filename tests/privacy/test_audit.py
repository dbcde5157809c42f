"""The empirical audit: its bound against closed forms and jax-privacy, and mechanisms that it must catch."""

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax_privacy import auditing
from scipy.stats import binom

import fedjax_lite as fl
from fedjax_lite.base import Mechanism
from fedjax_lite.privacy.audit import audit, lower_bound

KEY = jax.random.key(0)


def gaussian_scores(mu, n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(mu, 1, n), rng.normal(0, 1, n)


@pytest.mark.parametrize("mu, delta, least", [(0.5, 0.05, 0.1), (1.0, 1e-2, 0.4), (2.0, 0.1, 0.7)])
def test_gaussian_scores_stay_below_their_epsilon_and_come_within_a_part_of_it(mu, delta, least):
    exact = dp_accounting.get_epsilon_gaussian(1 / mu, delta)
    few = [lower_bound(*gaussian_scores(mu, 200, seed), delta) for seed in range(100)]
    many = [lower_bound(*gaussian_scores(mu, 5000, seed), delta) for seed in range(20)]
    assert np.sum(np.array(few) > exact) <= 5
    assert max(many) <= exact and np.mean(many) > max(least * exact, np.mean(few))


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 2.0])
def test_the_bound_is_exceeded_as_seldom_as_it_says_where_one_set_reaches_epsilon(epsilon):
    """Randomized response, with low confidence: without its correction for many sets the bound would fail every other time."""
    p, above = np.exp(epsilon) / (1 + np.exp(epsilon)), 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        above += lower_bound((rng.random(100) < p) * 1.0, (rng.random(100) > p) * 1.0, 0, confidence=0.5) > epsilon
    assert above <= 200


@pytest.mark.parametrize("mu", [1.0, -2.0, 6.0])
@pytest.mark.parametrize("n, ranks", [(15, [1, 4]), (128, [1, 4, 16, 64]), (127, [1, 4, 16])])
def test_it_is_the_largest_of_jax_privacys_bounds_at_the_same_thresholds(mu, n, ranks):
    present, absent = gaussian_scores(mu, n, seed=n)
    delta, risk = 1e-3, 0.05 / (8 * len(ranks))
    bounds = []
    for sign in (1, -1):
        for one, other in ((sign * present, sign * absent), (sign * absent, sign * present)):
            for rank in ranks:
                just_above = auditing.Explicit(np.nextafter(np.sort(other)[-rank], np.inf))
                auditor = auditing.CanaryScoreAuditor(one, other)
                bounds.append(auditor.epsilon_clopper_pearson(2 * risk, delta, threshold_strategy=just_above))
    assert lower_bound(present, absent, delta) == pytest.approx(max(bounds), rel=1e-9)


def test_scores_that_are_all_apart_show_the_most_and_by_hand():
    """At rank 1 of n = 32, K = 3: p^n = risk, (1 - q)^n = risk."""
    root = (0.05 / 24) ** (1 / 32)
    assert lower_bound(np.arange(32.0) + 100, np.arange(32.0), 0.1, 0.95) == pytest.approx(np.log((root - 0.1) / (1 - root)))
    hits, n, risk = 55, 60, 0.1 / 24  # Clopper and Pearson's own definition: Pr[Bin(n, p_low) >= hits] = risk
    present = np.r_[np.full(hits, 2.0), np.full(n - hits, -2.0)]
    epsilon = lower_bound(present, np.linspace(-1, 1, n), 0, 0.9)
    lowest = np.exp(epsilon) * (1 - risk ** (1 / n))
    assert binom.sf(hits - 1, n, lowest) == pytest.approx(risk, rel=1e-6)


def test_neither_the_side_nor_which_half_is_rarer_matters_and_ties_show_nothing():
    present, absent = gaussian_scores(2.0, 300, seed=3)
    found = lower_bound(present, absent, 1e-5)
    assert found > 1
    assert found == lower_bound(-present, -absent, 1e-5) == lower_bound(absent, present, 1e-5)
    assert lower_bound(np.zeros(300), np.zeros(300), 0) == 0
    spread = np.random.default_rng(0).normal(size=(2, 300)) * np.array([[10.0], [0.1]])
    assert lower_bound(*np.abs(spread), 1e-5) > 1, "a leak through the noise's size"


def test_scores_can_be_lists():
    present, absent = gaussian_scores(2.0, 100, seed=4)
    assert lower_bound(list(present), list(absent), 1e-5) == lower_bound(present, absent, 1e-5) > 0


# A linear problem: the gradient is the client's example. Client 0 is the canary, and pulls the other way, hard.
DIMENSIONS, CLIENTS, ROUNDS, CLIP, Z, DELTA = 4, 10, 4, 0.5, 2.0, 0.05


def pulls():
    rng = np.random.default_rng(0)
    others = rng.normal(size=(CLIENTS - 1, 1, DIMENSIONS)) * 0.05 + np.eye(DIMENSIONS)[0]
    return fl.FederatedData.from_clients([{"x": x} for x in (-1000 * np.eye(DIMENSIONS)[:1], *others)])


def released(aggregator, data):
    """The experiment: key, present -> the model after the rounds."""
    work = fl.sgd_work(lambda params, batch, key: batch["x"] @ params["w"], optax.sgd(1.0))
    algorithm = fl.federate(work, aggregator, fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(1), population=CLIENTS)

    def experiment(key, present):
        def sampler(key, sizes, round):
            cohort = fl.sampling.everyone()(key, sizes, round)
            return cohort._replace(weight=cohort.weight.at[0].multiply(present))

        state, _ = fl.simulate(algorithm, data, {"w": jnp.zeros(DIMENSIONS)}, sampler, rounds=ROUNDS, key=key)
        return algorithm.params(state)

    return experiment


def home_made(clip, divisor):
    """Noise of deviation z C on the sum of messages, some of it wrong."""

    def collect(messages, cohort, state):
        norms = jnp.linalg.norm(messages["w"], axis=1)
        factor = (cohort.weight > 0) * jnp.minimum(1, clip / norms)
        return factor @ messages["w"], jnp.sum(cohort.weight > 0)

    def finish(part, state, key):
        total, clients = part
        noisy = total + Z * CLIP * jax.random.normal(key, total.shape)
        return {"w": noisy / divisor(clients)}, state, {}

    return fl.Aggregator(lambda message: (), collect, finish, additive=True, privacy=Mechanism(Z))


def audited(aggregator, **options):
    upper = fl.privacy.epsilon(Z, 1.0, ROUNDS, DELTA)
    direction = {"w": jnp.eye(DIMENSIONS)[0]}
    return audit(released(aggregator, pulls()), direction, 1000, key=KEY, delta=DELTA, upper=upper, **options)


def test_dp_mean_is_between_a_fifth_of_the_accountants_bound_and_all_of_it():
    found = audited(fl.aggregators.dp_mean(CLIP, Z, CLIENTS))
    assert found.upper / 5 < found.epsilon <= found.upper < found.most
    assert not found.violated and str(found).endswith("consistent")
    # The canary's message moves each round's mean by C / clients: the scores are N(., T (z C / clients)^2).
    unit = CLIP / CLIENTS
    assert found.present.mean() - found.absent.mean() == pytest.approx(ROUNDS * unit, abs=4 * Z * unit * np.sqrt(2 * ROUNDS / 500))
    assert found.present.std() == pytest.approx(Z * unit * np.sqrt(ROUNDS), rel=0.2)


@pytest.mark.parametrize(
    "aggregator",
    [home_made(np.inf, lambda clients: CLIENTS), pytest.param(home_made(CLIP, lambda clients: clients), marks=pytest.mark.deep)],
    ids=["the clip left out", "sum and noise scaled by the real cohort"],
)
def test_broken_mechanisms_are_caught(aggregator):
    found = audited(aggregator)
    assert found.epsilon > found.upper and found.violated and str(found).endswith("VIOLATED")


def test_the_same_home_made_mechanism_without_a_mistake_is_not_caught():
    assert not audited(home_made(CLIP, lambda clients: CLIENTS)).violated


def noisy(key, present):
    return {"w": jnp.where(present, 3.0, 0.0) + jax.random.normal(key, (2,)), "b": jax.random.normal(key)}


@pytest.mark.deep
def test_runs_have_their_own_keys_and_vmapping_them_changes_nothing():
    by_function = audit(noisy, lambda release: release["w"][1] * 2 + release["b"], 100, key=KEY, delta=1e-5)
    direction = {"w": np.array([0, 2]), "b": np.array(1)}
    for together in (1, 7, 100):
        found = audit(noisy, direction, 100, key=KEY, delta=1e-5, together=together)
        np.testing.assert_allclose(found.present, by_function.present, rtol=1e-6)
        np.testing.assert_allclose(found.absent, by_function.absent, rtol=1e-6)
    scores = [noisy(jax.random.fold_in(KEY, i), i < 50) for i in (0, 49, 50, 99)]
    drawn = np.array([float(s["w"][1] * 2 + s["b"]) for s in scores])
    np.testing.assert_allclose(np.r_[found.present[[0, -1]], found.absent[[0, -1]]], drawn, rtol=1e-5)
    assert len(np.unique(np.r_[found.present, found.absent])) == 100
    assert found.upper is None and not found.violated and "accountant" not in str(found)


def test_what_is_refused():
    def call(experiment=noisy, canary=lambda release: release["b"], runs=100, delta=1e-5, **options):
        return audit(experiment, canary, runs, key=KEY, delta=delta, **options)

    for options, said in (
        ({"runs": 0}, "audit: runs must be an int of at least 2, got 0"),
        ({"together": 0}, "audit: together must be an int of at least 1, got 0"),
        ({"together": -1}, "together must be an int of at least 1, got -1"),
        ({"runs": 101}, "runs must be even"),
        ({"runs": 6}, "6 runs show no epsilon at confidence 0.95"),
        ({"delta": 1.0}, "audit: delta must be 0 or between 0 and 1, got 1.0: usually below"),
        ({"delta": -0.1}, "delta must be 0 or between"),
        ({"delta": float("nan")}, "delta must be 0 or between"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, got 1.0"),
        ({"confidence": 0.0}, "confidence must be between"),
        ({"upper": -1.0}, "upper must be an epsilon"),
        ({"upper": float("nan")}, "upper must be an epsilon"),
        ({"canary": lambda release: release["w"]}, r"float scalar, got float32\[2\]"),
        ({"canary": lambda release: release["b"] > 0}, "float scalar, got bool"),
        ({"canary": {"w": jnp.ones(2)}}, "a tree like the release"),
        ({"canary": {"w": jnp.ones(3), "b": jnp.ones(())}}, "a tree like the release"),
    ):
        with pytest.raises(ValueError, match=said):
            call(**options)
    with pytest.raises(ValueError, match="50 of 100 scores are not finite"):
        call(lambda key, present: {"b": jnp.where(present, jnp.nan, jax.random.normal(key))})
    with pytest.raises(ValueError, match="100 of 100 scores are not finite"):
        call(lambda key, present: {"b": jnp.inf})
    for absent in ([0, np.nan, 1], [0, 1]):
        with pytest.raises(ValueError, match="as many finite scores, at least 2, got shapes"):
            lower_bound(np.ones(3), absent, 0)
    assert call(upper=np.inf).violated is False, "nothing is claimed without noise"
