"""What each attack sends, against plain NumPy; in any order of slots, and where nobody or everybody is Byzantine."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attackers import (
    BAD,
    CLIENTS,
    EMPTY,
    HONEST,
    NO_WORK,
    SIZES,
    WIDTH,
    F,
    cohort_of,
    deviation,
    everything,
    flat,
    mean,
    one,
    program,
    received,
    stack,
    start,
    tree_of,
)
from scipy.stats import norm

from fedjax_lite import aggregators, attacks

pytestmark = pytest.mark.usefixtures("x64")


def furthest(V, p, within):
    """mu + gamma p with the largest gamma that stays within, by bisection."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if within(mean(V) + middle * p) else (low, middle)
    return mean(V) + low * p


def directions(V):
    return {"unit": -mean(V) / np.linalg.norm(mean(V)), "std": -deviation(V), "sign": -np.sign(mean(V))}


def min_max(V, direction):
    H = V[HONEST]
    widest = max(np.linalg.norm(a - b) for a in H for b in H)
    return furthest(V, directions(V)[direction], lambda m: max(np.linalg.norm(m - h) for h in H) <= widest)


def min_sum(V, direction):
    H = V[HONEST]
    most = max(sum(np.sum((a - b) ** 2) for b in H) for a in H)
    return furthest(V, directions(V)[direction], lambda m: sum(np.sum((m - h) ** 2) for h in H) <= most)


def z_max(n, f):
    return norm.ppf((n - f - (n // 2 + 1 - f)) / (n - f))


PRESENT = CLIENTS - 1
FORMULAS = {
    "sign_flip": (attacks.sign_flip(2.0), lambda V: -2 * V[BAD]),
    "opposite_mean": (attacks.opposite_mean(), lambda V: -mean(V)),
    "ipm": (attacks.ipm(5.0), lambda V: -5 * mean(V)),
    "alie": (attacks.alie(1.5), lambda V: mean(V) - 1.5 * deviation(V)),
    "alie z_max": (attacks.alie(), lambda V: mean(V) - z_max(PRESENT, F) * deviation(V)),
    "scaling": (attacks.scaling(10.0), lambda V: 10 * V[BAD]),
    "backdoor boosted": (attacks.backdoor(boost=3.0), lambda V: 3 * V[BAD]),
    "model_replacement": (
        attacks.model_replacement(server_rate=0.5),
        lambda V: SIZES[~EMPTY].sum() / SIZES[BAD].sum() / 0.5 * V[BAD],
    ),
    "free_rider": (attacks.free_rider(), lambda V: 0 * V[BAD]),
    "nan": (attacks.nan(), lambda V: np.nan * V[BAD]),
    **{f"min_max {d}": (attacks.min_max(d), functools.partial(min_max, direction=d)) for d in ("unit", "std", "sign")},
    **{f"min_sum {d}": (attacks.min_sum(d), functools.partial(min_sum, direction=d)) for d in ("unit", "std", "sign")},
}
DRAWN = {"gaussian": attacks.gaussian(3.0, mean=1.0), "random": attacks.random(2.0)}
EVERY = {name: attack for name, (attack, _) in FORMULAS.items()} | DRAWN | {"mimic": attacks.mimic(warmup=0)}
each_attack = pytest.mark.parametrize("name", EVERY)


@pytest.mark.parametrize("name", FORMULAS)
def test_what_is_sent_is_the_formula_and_nobody_else_changes(name):
    attack, formula = FORMULAS[name]
    for seed in (0, 1):
        V = stack(seed)
        sent = received(attack, V)
        np.testing.assert_allclose(sent[BAD], np.broadcast_to(formula(V), (F, WIDTH)), rtol=1e-6, atol=1e-8)
        np.testing.assert_array_equal(sent[~BAD], V[~BAD])


@each_attack
def test_the_order_of_slots_does_not_matter(name):
    order = np.random.default_rng(3).permutation(CLIENTS)
    np.testing.assert_allclose(received(EVERY[name], stack(), order=order), received(EVERY[name], stack())[order], rtol=1e-9)


@each_attack
def test_nobody_byzantine_nobody_honest_and_one_client(name):
    V = stack()
    np.testing.assert_array_equal(received(EVERY[name], V, bad=np.zeros(CLIENTS, bool)), V)
    for bad in (np.ones(CLIENTS, bool), np.arange(CLIENTS) == 0):
        sent = received(EVERY[name], V, bad=bad)
        np.testing.assert_array_equal(sent[~bad], V[~bad])
        assert (np.isfinite(sent[~EMPTY]) | (name == "nan")).all()


@pytest.mark.parametrize("name", ["sign_flip", "alie", "gaussian", "mimic"])
def test_half_precision_comes_back_as_it_went(name):
    def sent(V, state):
        _, rule = attacks.attacked(EVERY[name], jnp.asarray(BAD), NO_WORK, everything)
        return rule.finish(rule.collect(tree_of(V), cohort_of(jnp.arange(CLIENTS)), state), state, jax.random.key(0))[0]

    half = jax.ShapeDtypeStruct((CLIENTS, WIDTH), jnp.bfloat16)
    state = jax.eval_shape(lambda V: (EVERY[name].init(one(V)), ()), half)
    assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(sent, half, state))} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("name", DRAWN)
def test_draws_differ_by_client_coordinate_and_round(name):
    sent = received(DRAWN[name], stack())
    assert len(np.unique(sent[BAD])) == F * WIDTH and not np.allclose(sent[BAD], received(DRAWN[name], stack(), key=1)[BAD])


def test_draws_have_their_distribution():
    V = np.random.default_rng(0).normal(size=(CLIENTS, WIDTH)) * [1, 1, 1, 5, 5, 5, 5]
    V[EMPTY] = np.nan

    @jax.jit
    @jax.vmap
    def sent(key):
        steps = (program(attack)(V, BAD, np.arange(CLIENTS), ((), ()), key)[0] for attack in DRAWN.values())
        return jnp.stack([flat(messages)[BAD] for messages in steps])

    many = np.asarray(sent(jnp.arange(2000)))
    for i, (middle, spread) in enumerate([(1.0, 3.0), (0.0, 2 * deviation(V))]):
        standard = ((many[:, i] - middle) / spread).reshape(2000, -1)
        assert (np.abs(standard.mean(0)) < 0.12).all() and (np.abs(standard.std(0) - 1) < 0.08).all()
        assert np.abs(np.corrcoef(standard.T) - np.eye(standard.shape[1])).max() < 0.12


def mimicked(rounds, warmup):
    """The NumPy loop beside the library's, from the same first direction."""
    attack, V = attacks.mimic(warmup), [stack(seed) for seed in range(rounds)]
    state = start(attack)
    z = np.asarray(flat(jax.tree.map(lambda x: np.asarray(x)[None], state[0].direction)))[0]
    mu, sent, learned = np.zeros(WIDTH), [], []
    for t, M in enumerate(V):
        if t < warmup:
            mu = t / (1 + t) * mu + mean(M) / (1 + t)
            z = t / (1 + t) * z + sum((h - mu) @ z * (h - mu) for h in M[HONEST]) / (1 + t)
            z = z / np.linalg.norm(z)
            sent.append(M[BAD])
        else:
            sent.append(np.tile(M[HONEST][np.argmax(M[HONEST] @ z)], (F, 1)))
        learned.append((mu, z))
    return V, sent, learned


@jax.jit
def mimicking(V, warmup, state, key):
    """A step whose warm-up may be traced."""
    return program.__wrapped__(attacks.mimic(warmup))(V, BAD, np.arange(CLIENTS), state, key)


@pytest.mark.parametrize("warmup", [0, 2, 4])
def test_mimic_learns_the_direction_and_copies(warmup):
    V, expected, learned = mimicked(6, warmup)
    state = start(attacks.mimic())
    for M, sent, after in zip(V, expected, learned, strict=True):
        messages, state = mimicking(M, warmup, state, 0)
        np.testing.assert_allclose(np.asarray(flat(jax.tree.map(np.asarray, messages)))[BAD], sent, rtol=1e-9)
        for found, vector in zip((state[0].mean, state[0].direction), after, strict=True):
            np.testing.assert_allclose(np.append(np.ravel(found["w"]), found["b"]), vector, rtol=1e-6)


def test_z_max_is_the_papers_and_finite_at_the_edges():
    n, f = np.array([(20, 4), (10, 2), (11, 3), (50, 24), (7, 1), (0, 0), (1, 1), (1, 0), (4, 4), (3, 2)]).T
    found = np.asarray(jax.jit(jax.vmap(attacks.z_max))(n, f))
    np.testing.assert_allclose(found[:5], z_max(n[:5], f[:5]), rtol=1e-6)
    assert round(float(found[0]), 3) == 0.157 and np.isfinite(found).all()


def test_a_strength_may_be_a_tracer():
    def attacked_mean(scale):
        _, rule = attacks.attacked(attacks.ipm(scale), jnp.asarray(BAD), NO_WORK, aggregators.mean())
        messages, cohort = tree_of(jnp.asarray(V)), cohort_of(jnp.arange(CLIENTS))
        return rule.finish(rule.collect(messages, cohort, ((), ())), ((), ()), jax.random.key(0))[0]

    scales, V = np.array([0.5, 5.0]), stack()
    results = np.asarray(flat(jax.tree.map(np.asarray, jax.jit(jax.vmap(attacked_mean))(scales))))
    for result, scale in zip(results, scales, strict=True):
        np.testing.assert_allclose(result, (V[HONEST].sum(0) - F * scale * mean(V)) / PRESENT, rtol=1e-9)
