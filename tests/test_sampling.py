"""Samplers: who is drawn, how often, and in which form; all in one compiled program with a traced round."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedjax_lite as fl
from fedjax_lite.availability import markov
from fedjax_lite.base import NO_LIMIT
from fedjax_lite.sampling import (
    availability,
    cohort,
    cyclic,
    dropout,
    everyone,
    importance,
    including,
    poisson,
    shuffled,
    stragglers,
    stratified,
    uniform,
    weighted,
    with_replacement,
)

SIZES = np.array([5, 1, 12, 3, 8, 2, 7, 4, 6, 9], np.int32)
POPULATION, ROUNDS = len(SIZES), 4000


def backwards(key, sizes, round):
    return cohort(key, sizes, jnp.arange(POPULATION)[::-1])


SAMPLERS = {
    "uniform": uniform(3),
    "everyone": everyone(),
    "cyclic": cyclic(3),
    "weighted": weighted(3),
    "dropout": dropout(uniform(3), 0.4),
    "stragglers": stragglers(uniform(3), 0.5, 4),
    "availability": availability(uniform(3), 0.5, 8),
    "with_replacement": with_replacement(3, "examples"),
    "importance": importance(3),
    "importance without replacement": importance(3, replace=False),
    "shuffled": shuffled(3),
    "stratified": stratified(3, [0, 1] * 5),
    "on and off": availability(uniform(3), law=markov(0.5, 4)),
}
OTHERS = {
    "uniform of all": uniform(POPULATION),
    "backwards": backwards,
    "dropout of everyone": dropout(everyone(), 0.5),
    "dropout backwards": dropout(backwards, 0.5),
    "dropout twice": dropout(dropout(everyone(), 0.5), 0.5),
    "no dropout": dropout(uniform(3), 0),
    "stragglers of everyone": stragglers(everyone(), 0.5, 9),
    "stragglers backwards": stragglers(backwards, 0.5, 9),
    "stragglers twice": stragglers(stragglers(uniform(3), 1, 2), 1, 4),
    "weighted one": weighted(1),
    "weighted two": weighted(2),
    "weighted without examples": lambda key, sizes, round: weighted(4)(key, sizes.at[:6].set(0), round),
    "poisson small": poisson(0.3, 4),
    "availability of everyone": availability(everyone(), 0.5, 8),
    "always available": availability(everyone(), 1, 8),
}


POISSON = {"poisson": 0.3, "poisson of all": 1.0, "poisson of nobody": 1e-6}  # one sampler for all rates


@functools.cache
def drawn():
    """The cohorts of many rounds of each, as `advance` draws them: a traced round, a key a round."""

    def one(sizes, t):
        key = jax.random.fold_in(jax.random.key(0), t)
        found = {name: sampler(key, sizes, t) for name, sampler in (SAMPLERS | OTHERS).items()}
        rates = jax.vmap(lambda rate: poisson(rate, 10)(key, sizes, t))(jnp.array(list(POISSON.values())))
        found |= {name: jax.tree.map(lambda x, i=i: x[i], rates) for i, name in enumerate(POISSON)}
        return found | {"dropout of poisson": dropout(lambda *args: found["poisson"], 0.5)(key, sizes, t)}

    found = jax.jit(jax.vmap(one, (None, 0)))(SIZES, np.arange(ROUNDS))
    return {
        name: chosen._replace(**{f: np.asarray(getattr(chosen, f)) for f in ("id", "size", "weight", "steps")})
        for name, chosen in found.items()
    }


def rounds(name):
    return drawn()[name]


def plausible(counts, probability, trials):
    """Whether binomial counts are within five standard deviations, and not all too close either."""
    counts, expected = np.asarray(counts), trials * np.asarray(probability)
    deviation = np.sqrt(expected * (1 - np.asarray(probability)))
    z = (counts - expected) / deviation
    return (np.abs(z) < 5).all() and (z**2).sum() > stats.chi2.ppf(1e-6, len(counts) - 1)


def counts(chosen):
    """How often each client took part."""
    return np.bincount(np.asarray(chosen.id)[np.asarray(chosen.weight) > 0], minlength=POPULATION)


@pytest.mark.parametrize("name", [*SAMPLERS, "poisson"])
def test_every_sampler_keeps_the_contract(name):
    chosen = rounds(name)
    assert isinstance(chosen, fl.Client)
    assert chosen.id.dtype == jnp.int32 and chosen.steps.dtype == jnp.int32 and chosen.weight.dtype == jnp.float32
    ids = np.asarray(chosen.id)
    assert ((0 <= ids) & (ids < POPULATION)).all()
    there = [row[weight > 0].tolist() for row, weight in zip(ids[:500], np.asarray(chosen.weight), strict=False)]
    assert all(len(set(row)) == len(row) for row in there)  # nobody twice
    np.testing.assert_array_equal(chosen.size, SIZES[ids])
    np.testing.assert_array_equal(chosen.steps >= 1, True)


def test_uniform_draws_every_client_and_every_pair_equally_often():
    chosen = rounds("uniform")
    assert chosen.id.shape == (ROUNDS, 3)
    assert plausible(counts(chosen), np.full(POPULATION, 0.3), ROUNDS)
    ids = np.sort(np.asarray(chosen.id), axis=1)
    pairs = np.concatenate([ids[:, [0, 1]], ids[:, [0, 2]], ids[:, [1, 2]]]) @ [POPULATION, 1]
    seen = np.bincount(pairs, minlength=POPULATION**2).reshape(POPULATION, POPULATION)[np.triu_indices(POPULATION, 1)]
    assert plausible(seen, np.full(len(seen), 3 / 45), ROUNDS)
    assert (np.sort(rounds("uniform of all").id, axis=1) == np.arange(POPULATION)).all()


@pytest.mark.parametrize("wrapper", ["dropout", "stragglers"])
def test_what_wrappers_draw_is_a_clients_own(wrapper):
    forth, back = rounds(f"{wrapper} of everyone"), rounds(f"{wrapper} backwards")
    np.testing.assert_array_equal(forth.weight, back.weight[:, ::-1])
    np.testing.assert_array_equal(forth.steps, back.steps[:, ::-1])


def test_each_wrapper_tosses_a_coin_of_its_own():
    """Two drop-outs of one half leave a quarter; equal draws would leave a half."""
    twice = rounds("dropout twice").weight
    assert plausible([twice.sum()] * 2, np.full(2, 0.25), twice.size)


def test_everyone_is_everyone():
    np.testing.assert_array_equal(rounds("everyone").id, np.tile(np.arange(POPULATION), (ROUNDS, 1)))


def test_cyclic_goes_round():
    np.testing.assert_array_equal(rounds("cyclic").id.reshape(-1), np.arange(3 * ROUNDS) % POPULATION)


def test_weighted_draws_one_after_another_by_size():
    first = rounds("weighted one").id[:, 0]
    share = SIZES / SIZES.sum()
    assert plausible(np.bincount(first, minlength=POPULATION), share, ROUNDS)
    # Two draws without replacement: P(k) = p_k + sum_j p_j p_k / (1 - p_j).
    twice = share + [sum(share[j] * share[k] / (1 - share[j]) for j in range(POPULATION) if j != k) for k in range(POPULATION)]
    assert plausible(counts(rounds("weighted two")), twice, ROUNDS)
    assert (np.sort(rounds("weighted without examples").id, axis=1) == [6, 7, 8, 9]).all()


def test_poisson_counts_are_binomial_and_clients_equally_likely():
    chosen = rounds("poisson")
    present = np.asarray(chosen.weight).sum(axis=1).astype(int)
    assert plausible(counts(chosen), np.full(POPULATION, 0.3), ROUNDS)
    seen, expected = np.bincount(present, minlength=11), stats.binom.pmf(np.arange(11), 10, 0.3) * ROUNDS
    statistic = ((seen - expected) ** 2 / expected)[:8].sum()
    assert stats.chi2.ppf(1e-4, 8) < statistic < stats.chi2.ppf(1 - 1e-4, 8)
    together = (np.asarray(chosen.weight) * (np.asarray(chosen.id) < 2)).sum(axis=1) == 2  # clients 0 and 1 are independent
    assert plausible([together.sum()] * 2, np.full(2, 0.09), ROUNDS)


def test_poisson_has_a_capacity():
    small = rounds("poisson small").weight
    assert small.shape == (ROUNDS, 4) and small.sum(axis=1).max() == 4
    assert (rounds("poisson of all").weight == 1).all() and rounds("poisson of nobody").weight.mean() < 1e-3
    assert jax.eval_shape(poisson(1, 99), jax.random.key(0), jnp.asarray(SIZES), 0).id.shape == (POPULATION,)  # no more slots than clients


def test_dropout_empties_slots_and_changes_nothing_else():
    chosen, before = rounds("dropout"), rounds("uniform")
    np.testing.assert_array_equal(chosen.id, before.id)
    lost = np.asarray(chosen.weight).reshape(-1) == 0
    assert plausible([lost.sum()] * 2, np.full(2, 0.4), 3 * ROUNDS)
    assert plausible(counts(chosen), np.full(POPULATION, 0.3 * 0.6), ROUNDS)
    np.testing.assert_array_equal(rounds("no dropout").weight, 1)


def test_stragglers_take_fewer_steps():
    chosen = rounds("stragglers")
    steps = np.asarray(chosen.steps).reshape(-1)
    assert set(steps.tolist()) == {1, 2, 3, 4, int(NO_LIMIT)}
    assert plausible([np.sum(steps == NO_LIMIT), *(np.sum(steps == j) for j in (1, 2, 3, 4))], np.array([0.5] + [0.125] * 4), 3 * ROUNDS)
    assert set(rounds("stragglers twice").steps.reshape(-1).tolist()) == {1, 2}  # the tighter limit holds


def test_availability_is_a_window_of_each_clients_own():
    reached = rounds("availability of everyone").weight
    np.testing.assert_array_equal(reached[:8], reached[8:16])  # day after day
    assert set(reached[:8].sum(axis=0).tolist()) <= {4.0} and len({tuple(column) for column in reached[:8].T}) > 3
    assert all(np.abs(np.diff(np.append(column, column[0]))).sum() == 2 for column in reached[:8].T)  # one window a day
    assert (rounds("always available").weight == 1).all()
    short = availability(everyone(), 0.05, 3)  # less than a round a day: 15 % of the clients, in one round of three each
    ever = np.sum([short(jax.random.key(0), jnp.ones(2000, jnp.int32), t).weight for t in range(3)], axis=0)
    assert set(ever.tolist()) == {0, 1} and abs(ever.sum() - 300) < 5 * np.sqrt(2000 * 0.15 * 0.85)


def test_a_cohort_by_hand():
    by_hand = jax.jit(lambda ids, weight: cohort(jax.random.key(0), jnp.asarray(SIZES), ids, weight))
    chosen = by_hand(np.array([4, 0]), np.array([1, 0]))
    assert chosen.size.tolist() == [8, 5] and chosen.weight.tolist() == [1, 0] and chosen.steps.tolist() == [NO_LIMIT] * 2
    assert by_hand(np.array([10, -1, 9]), None).size.tolist() == [0, 0, 9]  # nobody has these numbers


@pytest.mark.parametrize("kind", [np.int64, jnp.int32])
def test_numbers_of_numpy_and_jax_are_numbers(kind):
    share, sizes = (np.float64 if kind is np.int64 else jnp.float32)(0.5), jnp.asarray(SIZES)
    samplers = (uniform(kind(3)), cyclic(kind(3)), weighted(kind(3)), including(uniform(kind(2)), [kind(4)]))
    more = (dropout(uniform(3), share), stragglers(uniform(3), share, kind(2)), availability(uniform(3), share, kind(2)))
    for sampler in samplers + more:
        assert jax.eval_shape(sampler, jax.random.key(0), sizes, 0).id.shape == (3,)
    assert poisson(share, kind(2)).participation == poisson(0.5, 2).participation


def test_a_client_that_is_always_there_starts_from_this_rounds_model():
    sampler = including(fl.sampling.scheduled([[0, 2]], [[1, 3]]), [2, 4])
    chosen = sampler(jax.random.key(0), jnp.asarray(SIZES), jnp.int32(0))
    assert chosen.id.tolist() == [0, 2, 2, 4] and chosen.weight.tolist() == [1, 0, 1, 1] and chosen.age.tolist() == [1, 3, 0, 0]


def test_stragglers_steps_are_int32_in_double_precision_too(x64):
    assert jax.eval_shape(stragglers(uniform(3), 0.5, 4), jax.random.key(0), jnp.asarray(SIZES), 0).steps.dtype == jnp.int32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(0), "uniform: clients must be a whole number of at least 1, got 0"),
        (lambda: cyclic(-1), "cyclic: clients must be .* got -1"),
        (lambda: weighted(0), "weighted: clients"),
        (lambda: poisson(0.0, 5), r"poisson: rate must be in \(0, 1\], got 0.0"),
        (lambda: poisson(0.5, 0), "poisson: capacity must be"),
        (lambda: dropout(uniform(3), 1.0), r"dropout: rate must be in \[0, 1\), got 1.0"),
        (lambda: stragglers(uniform(3), 1.5, 1), r"stragglers: share must be in \[0, 1\], got 1.5"),
        (lambda: stragglers(uniform(3), 0.5, 0), "stragglers: most_steps must be"),
        (lambda: availability(uniform(3), 0, 5), r"availability: share must be in \(0, 1\], got 0"),
        (lambda: availability(uniform(3), 0.5, 0), "availability: period must be"),
        (lambda: poisson(np.float32(2)), "poisson: rate"),
        (lambda: poisson(True), "poisson: rate"),
        (lambda: dropout(uniform(3), jnp.float32(1)), "dropout: rate"),
        (lambda: including(uniform(3), [0, True, 2, 2]), "including: clients must be a list of different client ids"),
        *(
            (lambda make=make: make(11)(jax.random.key(0), jnp.asarray(SIZES), 0), "clients=11 is more than the population of 10: lower it")
            for make in (uniform, cyclic, weighted)
        ),
    ],
)
def test_what_samplers_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_drop_outs_do_not_know_how_many_were_drawn():
    """Each client of a Poisson cohort is lost with the same probability, whatever the size of the cohort."""
    here, kept = (
        np.array([np.bincount(ids, weights > 0, POPULATION) for ids, weights in zip(chosen.id, chosen.weight, strict=True)])
        for chosen in (rounds("poisson"), rounds("dropout of poisson"))
    )
    for client in range(POPULATION):
        chosen, size = here[:, client] > 0, here.sum(axis=1)
        assert abs(kept[chosen, client].mean() - 0.5) < 5 * 0.5 / np.sqrt(chosen.sum())
        assert abs(np.corrcoef(kept[chosen, client], size[chosen])[0, 1]) < 5 / np.sqrt(chosen.sum())
