"""Samplers that look at losses: power of choice against enumeration, Oort's numbers by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import fedjax_lite as fl
from fedjax_lite import sampling
from fedjax_lite.data.federated import Piece
from fedjax_lite.sampling.losses import client_losses
from fedjax_lite.sampling.oort import Oort, _chosen, _limit, _remember, _scores, slowed

SIZES = np.array([10, 20, 30, 40, 100], np.int32)
LOSSES = np.array([0.5, 3.5, 2, 1.2, 0.9])
DATA = fl.FederatedData.from_clients([{"x": np.full(n, loss, np.float32)} for n, loss in zip(SIZES, LOSSES, strict=True)])
ROUNDS = 4000


def loss_fn(params, batch, key):
    return params * batch["x"]


def looked_at(sampler, data=DATA, params=1.0):
    """One round's cohort of a sampler without memory, for vmap over keys."""

    def one(key, sizes, data):
        cohort, memory = sampler.sample(key, sizes, jnp.int32(0), sampler.init(sizes), None)
        cohort, _ = sampler.look(params, data, cohort, memory)
        return cohort.id, cohort.weight

    return jax.device_get(jax.jit(jax.vmap(one, (0, None, None)))(jax.random.split(jax.random.key(2), ROUNDS), data.size, data))


def test_power_of_choice_takes_the_largest_loss_of_the_candidates():
    exact = np.zeros(5)
    for order in itertools.permutations(range(5), 3):
        left, p = 200.0, 1.0
        for k in order:
            p, left = p * SIZES[k] / left, left - SIZES[k]
        exact[max(order, key=LOSSES.__getitem__)] += p
    np.testing.assert_allclose(exact, [0, 0.4576288950, 0.4389354325, 0.1034356725, 0], atol=1e-10)
    ids, weight = looked_at(sampling.power_of_choice(loss_fn, 1, 3))
    counts = np.bincount(ids[:, 0], minlength=5)
    assert ids.shape == (ROUNDS, 1) and (weight == 1).all() and counts[[0, 4]].tolist() == [0, 0]
    statistic = ((counts - ROUNDS * exact)[1:4] ** 2 / (ROUNDS * exact)[1:4]).sum()
    assert statistic < stats.chi2.ppf(1 - 1e-4, 2)


def test_of_equal_losses_the_first_drawn_takes_part_and_nobody_without_examples():
    by_size = sampling.weighted(3)
    sampler = sampling.power_of_choice(lambda params, batch, key: 0 * batch["x"], 2, 3)
    key = jax.random.key(4)
    cohort, _ = sampler.sample(key, DATA.size, 0, (), None)
    kept, _ = sampler.look(1.0, DATA, cohort, ())
    assert kept.id.tolist() == by_size(key, DATA.size, 0).id[:2].tolist() and kept.key.shape == kept.steps.shape == (2,)
    cohort = sampling.cohort(key, DATA.size.at[4].set(0), jnp.array([4, 0, 1]), jnp.array([1.0, 0, 1]))
    kept, _ = sampler.look(1.0, DATA, cohort, ())
    assert kept.id.tolist()[0] == 1 and kept.weight.tolist() == [1, 0]


def test_losses_are_those_of_each_clients_examples_wherever_they_lie():
    rng = np.random.default_rng(0)
    clients = [{"x": rng.normal(size=n).astype(np.float32)} for n in (1, 700, 3, 256, 20)]
    data = fl.FederatedData.from_clients(clients)
    cohort = sampling.cohort(jax.random.key(0), data.size, jnp.array([3, 0, 1]))
    rows = np.concatenate([clients[k]["x"] for k in (3, 0, 1)] + [np.full(50, 1e9, np.float32)])
    piece = Piece({"x": rows}, jnp.array([0, 256, 257]), 700, 5, device=jnp.zeros(3, jnp.int32))
    for held in (data, piece):
        found, placed = jax.jit(lambda data: client_losses(loss_fn, 2.0, data, cohort))(held)
        for slot, k in enumerate((3, 0, 1)):
            np.testing.assert_allclose(found.mean[slot], 2 * clients[k]["x"].mean(dtype=np.float64), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found.mean_square[slot], 4 * (clients[k]["x"].astype(np.float64) ** 2).mean(), rtol=1e-5)
        assert placed.place.start is not None


@pytest.mark.deep
def test_losses_over_some_examples_are_over_different_ones_of_the_clients_own():
    data = fl.FederatedData.from_clients([{"x": 2.0 ** np.arange(8)}, {"x": 256.0 + np.zeros(2)}])
    key = lambda t: sampling.cohort(jax.random.fold_in(jax.random.key(0), t), data.size, jnp.arange(2))  # noqa: E731
    found = jax.vmap(lambda t: client_losses(loss_fn, 1.0, data, key(t), 3)[0].mean)(np.arange(50))
    sums = np.round(3 * np.asarray(found[:, 0])).astype(int).tolist()
    assert all(bin(each).count("1") == 3 and each < 256 for each in sums) and len(set(sums)) > 20
    assert (found[:, 1] == 256).all()


def test_clients_whose_examples_lie_on_several_devices_are_refused():
    piece = Piece({"x": np.zeros(8)}, jnp.zeros(2, jnp.int32), 2, 2, device=jnp.zeros(2, jnp.int32))
    cohort = sampling.cohort(jax.random.key(0), jnp.ones(2, jnp.int32), jnp.arange(2))
    with jax.set_mesh(jax.make_mesh((2,), ("clients",), axis_types=(jax.sharding.AxisType.Auto,))):
        with pytest.raises(ValueError, match="looks at the losses of clients whose examples are split over devices"):
            client_losses(loss_fn, 1.0, piece, cohort)


@pytest.mark.parametrize("sampler", [sampling.power_of_choice(loss_fn, 1, 2), sampling.oort(loss_fn, 2)], ids=["power", "oort"])
def test_no_guarantee_covers_them(sampler):
    private = fl.aggregators.dp_mean(1.0, 1.0, 2)
    with pytest.raises(ValueError, match="no accountant covers this sampler"):
        fl.privacy.account(private.privacy, sampler, 5, rounds=2, delta=1e-3)
    algorithm = fl.federate(
        fl.sgd_work(loss_fn, optax.sgd(0.1)), private, fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(None), population=5
    )
    with pytest.raises(ValueError, match="looks at clients' losses, which tell of their examples what no noise hides"):
        jax.eval_shape(lambda: fl.simulate(algorithm, DATA, jnp.ones(()), sampler, rounds=1, key=jax.random.key(0))[1])


def test_oorts_utility_by_hand(x64):
    data = fl.FederatedData.from_clients([{"x": np.array([1, 2, 0.5, 0])}])
    cohort = sampling.cohort(jax.random.key(0), data.size, jnp.array([0]))
    losses, cohort = client_losses(loss_fn, 1.0, data, cohort)
    utility = cohort.size * jnp.sqrt(losses.mean_square)
    np.testing.assert_allclose(utility * slowed(jnp.array([20.0]), 10.0, 2.0), 1.1456439237, atol=1e-10)
    np.testing.assert_allclose(utility * slowed(jnp.array([10.0]), 10.0, 2.0), 4.5825756950, atol=1e-10)


UTILITY = np.array([3, 9, 4, 100, 5, 1, 0, 0, 0, 0, 0.5, 8])
LAST = np.array([2, 5, 1, 4, 6, 3, 0, 0, 0, 0, 1, 6])
OF_TWELVE = np.array([10, 20, 30, 40, 50, 60, 1000, 100, 10, 0, 5, 5])
DURATIONS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12.0])


def memory():
    pair = jnp.zeros(2), jnp.int32(7), jnp.int32(0)
    return Oort(jnp.asarray(UTILITY, jnp.float32), jnp.asarray(LAST, jnp.int32), jnp.float32(50.0), *pair)


def scores_by_hand(slow, now=7):
    known = LAST > 0
    ordered = np.sort(UTILITY[known])
    clip, least = ordered[int(0.9 * len(ordered))], 0.999 * ordered[0]
    scaled = (np.minimum(UTILITY, clip) - least) / (ordered[-1] - least)
    return np.where(known, (scaled + np.sqrt(0.1 * np.log(now) / np.maximum(LAST, 1))) * slow, 0)


def test_oorts_scores_by_hand():
    limit = float(_limit(DURATIONS, jnp.float32(50.0)))
    assert limit == 7 and np.isinf(_limit(DURATIONS, jnp.float32(100.0)))
    slow = np.where(DURATIONS > 7, (7 / DURATIONS) ** 2, 1)
    np.testing.assert_allclose(slowed(jnp.asarray(DURATIONS), limit, 2.0), slow, rtol=1e-6)
    found = _scores(memory(), jnp.asarray(LAST > 0), 7, jnp.asarray(slow, jnp.float32))
    np.testing.assert_allclose(found, scores_by_hand(slow), rtol=1e-5)


@functools.cache
def chosen():
    """Cohorts of five, and of one."""
    some = lambda key: tuple(_chosen(key, jnp.asarray(OF_TWELVE, jnp.int32), 7, memory(), jnp.ones(12), m) for m in (5, 1))  # noqa: E731
    return jax.device_get(jax.jit(jax.vmap(some))(jax.random.split(jax.random.key(3), ROUNDS)))


def test_oort_chooses_some_for_their_utility_and_some_that_are_new():
    (ids, number), alone = chosen()
    assert set(number.tolist()) == {int(5 * (1 - 0.9 * 0.98**7))} == {1}
    first = np.bincount(ids[:, 0], minlength=12)
    score = scores_by_hand(1.0)
    among = score >= 0.05 * np.sort(score)[-2]
    expected = ROUNDS * np.where(among, score, 0) / score[among].sum()
    assert first[~among].sum() == 0
    assert ((first - expected)[among] ** 2 / expected[among]).sum() < stats.chi2.ppf(1 - 1e-4, among.sum() - 1)
    assert (np.sort(ids[:, 1:4], axis=1) == [6, 7, 8]).all()  # all that are new and have examples
    assert (LAST[ids[:, 4]] > 0).all() and all(len(set(row)) == 5 for row in ids[:200].tolist())
    assert abs((alone[0][:, 0] == 6).mean() - 1000 / 1110) < 4.5 * np.sqrt(0.09 / ROUNDS) and not alone[1].any()  # by their sizes


def test_oort_remembers_utilities_and_its_pacer_moves_the_limit():
    cohort = sampling.cohort(jax.random.key(0), jnp.ones(12, jnp.int32), jnp.array([3, 0, 7]), jnp.array([1.0, 1, 0]))
    state, quantiles = memory()._replace(round=jnp.int32(0), exploited=jnp.int32(1)), []
    for utility in (10.0, 10.0, 10.5, 100.0, 2.0):
        for _ in range(4):
            state = _remember(state._replace(round=state.round + 1), cohort, jnp.array([utility, 7.0, 9.0]), 4, 5.0)
        quantiles.append(float(state.quantile))
    assert quantiles == [50, 55, 60, 55, 55]  # the first window, flat, flat, nine times as much, much less but no five times
    assert state.utility[jnp.array([3, 0, 7])].tolist() == [2, 7, 0] and state.last[jnp.array([3, 0, 7])].tolist() == [20, 20, 0]


@pytest.mark.deep
def test_oort_visits_everyone_and_goes_back_to_those_it_serves_badly():
    algorithm = fl.algorithms.fedsgd(lambda params, batch, key: 0 * params + batch["x"], learning_rate=0.1, population=5)
    sampler = sampling.oort(loss_fn, 2, durations=[1, 1, 1, 1, 9])
    run = jax.jit(lambda data: fl.simulate(algorithm, data, jnp.ones(()), sampler, rounds=60, key=jax.random.key(0))[0])
    memory, drawn = run(DATA).sampling
    np.testing.assert_allclose(memory.utility, SIZES * LOSSES, rtol=1e-5)
    assert drawn.sum() == 120 and drawn.min() >= 1 and int(memory.round) == 60 and drawn[1] > drawn[0]


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: sampling.power_of_choice(loss_fn, 3, 2), ValueError, "candidates=2 are fewer than clients=3: raise them"),
        (lambda: sampling.power_of_choice(loss_fn, 0, 2), ValueError, "power_of_choice: clients must be"),
        (lambda: sampling.power_of_choice("loss", 1, 2), TypeError, "loss_fn"),
        (lambda: looked_at(sampling.power_of_choice(loss_fn, 1, 6)), ValueError, "candidates=6 are more than the population of 5"),
        (lambda: sampling.oort(None, 1), TypeError, "loss_fn"),
        (lambda: sampling.oort(loss_fn, 1, [1, 0]), ValueError, "oort: durations must be positive seconds"),
        (lambda: sampling.oort(loss_fn, 1, "fast"), ValueError, "oort: durations must be positive seconds, one for each client, got fast"),
        (lambda: sampling.oort(loss_fn, 1, quantile=0), ValueError, r"oort: quantile must be in \(0, 1\], got 0"),
        (lambda: looked_at(sampling.oort(loss_fn, 6)), ValueError, "oort: clients=6 is more than the population of 5"),
        (lambda: looked_at(sampling.oort(loss_fn, 2, [1, 2])), ValueError, "oort: durations has 2 numbers for 5 clients"),
        (
            lambda: sampling.dropout(sampling.oort(loss_fn, 2), 0.1)(jax.random.key(0), DATA.size, 0),
            TypeError,
            "with a memory cannot stand",
        ),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
