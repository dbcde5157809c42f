"""Each attack against plain NumPy; who mounts it; data attacks end to end; the worst case against known directions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import softmax_loss
from scipy.stats import norm

import fedjax_lite as fl
from fedjax_lite import aggregators, attacks

CLIENTS, F = 9, 3
BAD = np.isin(np.arange(CLIENTS), [1, 4, 7])
EMPTY = np.arange(CLIENTS) == 5  # and it holds NaN
HONEST = ~BAD & ~EMPTY
SIZES = np.arange(3, 3 + CLIENTS)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def stack(seed=0, shift=0.5):
    V = np.random.default_rng(seed).normal(size=(CLIENTS, 7)) + shift
    V[EMPTY] = np.nan
    return V


def tree_of(V):
    return {"w": jnp.asarray(V[:, :6]).reshape(len(V), 3, 2), "b": jnp.asarray(V[:, 6])}


def flat(messages):
    return np.column_stack([np.asarray(messages["w"]).reshape(len(messages["b"]), -1), np.asarray(messages["b"])])


def cohort(order=range(CLIENTS)):
    order = np.array(list(order))
    weight = jnp.where(jnp.asarray(EMPTY[order]), 0.0, 1.0)
    return fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES, jnp.int32), jnp.asarray(order), weight)


def everything():
    """An aggregator whose aggregate is all that it is given."""
    return aggregators.from_stack(lambda messages, cohort: messages)


def received(attack, V, rounds=1, bad=BAD, order=range(CLIENTS), key=0):
    """What the server receives in the last of some rounds with these messages."""
    _, aggregator = attacks.attacked(attack, jnp.asarray(bad), None_work(), everything())
    state, order = aggregator.init(jax.tree.map(lambda x: x[0], tree_of(V))), list(order)
    step = jax.jit(lambda messages, state, key: aggregator.finish(aggregator.collect(messages, cohort(order), state), state, key)[:2])
    for t in range(rounds):
        messages, state = step(tree_of(V[order]), state, jax.random.key(key + t))
    return flat(messages)


def None_work():
    return fl.sgd_work(softmax_loss, optax.sgd(0.1))


def mean(V):
    return V[HONEST].mean(0)


def deviation(V):
    return V[HONEST].std(0, ddof=1)


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
    "model_replacement": (
        attacks.model_replacement(server_rate=0.5),
        lambda V: SIZES[~EMPTY].sum() / SIZES[BAD].sum() / 0.5 * V[BAD],
    ),
    "free_rider": (attacks.free_rider(), lambda V: 0 * V[BAD]),
    "nan": (attacks.nan(), lambda V: np.nan * V[BAD]),
    **{f"min_max {d}": (attacks.min_max(d), functools.partial(min_max, direction=d)) for d in ("unit", "std", "sign")},
    **{f"min_sum {d}": (attacks.min_sum(d), functools.partial(min_sum, direction=d)) for d in ("unit", "std", "sign")},
}
each_formula = pytest.mark.parametrize("name", FORMULAS)


@each_formula
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_sent_is_the_formula_and_nobody_else_changes(name, seed):
    attack, formula = FORMULAS[name]
    V = stack(seed)
    sent = received(attack, V)
    np.testing.assert_allclose(sent[BAD], np.broadcast_to(formula(V), (F, 7)), rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(sent[~BAD], V[~BAD])


@each_formula
def test_the_order_of_slots_does_not_matter(name):
    order = np.random.default_rng(3).permutation(CLIENTS)
    np.testing.assert_allclose(received(FORMULAS[name][0], stack(), order=order), received(FORMULAS[name][0], stack())[order], rtol=1e-9)


@pytest.mark.parametrize("attack", [attacks.gaussian(3.0, mean=1.0), attacks.random(2.0)], ids=["gaussian", "random"])
def test_draws_follow_the_client_and_differ(attack):
    order = np.random.default_rng(3).permutation(CLIENTS)
    sent = received(attack, stack())
    np.testing.assert_allclose(received(attack, stack(), order=order), sent[order])
    assert len(np.unique(sent[BAD])) == F * 7 and not np.allclose(sent[BAD], received(attack, stack(), key=1)[BAD])


def test_draws_have_their_distribution():
    rng = np.random.default_rng(0)
    V = rng.normal(size=(CLIENTS, 20_000)) * np.repeat([1.0, 5.0], 10_000)
    big = {"w": jnp.asarray(V)}
    everyone = fl.sampling.cohort(jax.random.key(0), jnp.ones(CLIENTS, int), jnp.arange(CLIENTS))
    for attack, (middle, spread) in (
        (attacks.gaussian(3.0, mean=1.0), (1.0, 3.0 + 0 * V[0])),
        (attacks.random(2.0), (0.0, 2 * V[~BAD].std(0, ddof=1))),
    ):
        _, rule = attacks.attacked(attack, jnp.asarray(BAD), None_work(), everything())
        state = rule.init({"w": big["w"][0]})
        sent = np.asarray(rule.finish(rule.collect(big, everyone, state), state, jax.random.key(0))[0]["w"])[BAD]
        standard = (sent - middle) / spread
        assert abs(standard.mean()) < 0.02 and abs(standard.std() - 1) < 0.02


def mimicked(rounds, warmup):
    """The NumPy loop beside the library's, from the same first direction."""
    attack, V = attacks.mimic(warmup), [stack(seed) for seed in range(rounds)]
    learned = attack.init(jax.tree.map(lambda x: x[0], tree_of(V[0])))
    z = flat(jax.tree.map(lambda x: x[None], learned.direction))[0]
    mu, sent = np.zeros(7), []
    for t, M in enumerate(V):
        if t < warmup:
            mu = t / (1 + t) * mu + mean(M) / (1 + t)
            z = t / (1 + t) * z + sum((h - mu) @ z * (h - mu) for h in M[HONEST]) / (1 + t)
            z = z / np.linalg.norm(z)
            sent.append(M[BAD])
        else:
            sent.append(np.tile(M[HONEST][np.argmax(M[HONEST] @ z)], (F, 1)))
    return attack, V, sent


@pytest.mark.parametrize("warmup", [0, 2, 4])
def test_mimic_learns_the_direction_and_copies(warmup):
    attack, V, expected = mimicked(6, warmup)
    _, rule = attacks.attacked(attack, jnp.asarray(BAD), None_work(), everything())
    state = rule.init(jax.tree.map(lambda x: x[0], tree_of(V[0])))
    step = jax.jit(lambda messages, state: rule.finish(rule.collect(messages, cohort(), state), state, jax.random.key(0))[:2])
    for M, sent in zip(V, expected):
        messages, state = step(tree_of(M), state)
        np.testing.assert_allclose(flat(messages)[BAD], sent, rtol=1e-9)


@pytest.mark.parametrize("n, f", [(20, 4), (10, 2), (11, 3), (50, 24), (7, 1)])
def test_z_max(n, f):
    np.testing.assert_allclose(attacks.z_max(n, f), z_max(n, f), rtol=1e-6)
    assert round(float(attacks.z_max(20, 4)), 3) == 0.157


@pytest.mark.parametrize("n, f", [(0, 0), (1, 1), (1, 0), (4, 4), (3, 2)])
def test_z_max_is_finite_at_the_edges(n, f):
    assert np.isfinite(attacks.z_max(n, f))


EVERY = {name: attack for name, (attack, _) in FORMULAS.items() if name != "nan"} | {
    "gaussian": attacks.gaussian(),
    "random": attacks.random(),
    "mimic": attacks.mimic(warmup=0),
    "worst_case": attacks.worst_case(steps=2),
}


@pytest.mark.parametrize("name", EVERY)
def test_nobody_byzantine_nobody_honest_and_one_client(name):
    V = stack()
    if name != "worst_case":
        np.testing.assert_array_equal(received(EVERY[name], V, bad=np.zeros(CLIENTS, bool)), V)
        assert np.isfinite(received(EVERY[name], V, bad=np.ones(CLIENTS, bool))[~EMPTY]).all()
    _, rule = attacks.attacked(EVERY[name], jnp.asarray(BAD), None_work(), aggregators.median())
    for bad in (np.zeros(CLIENTS, bool), np.ones(CLIENTS, bool), np.arange(CLIENTS) == 0):
        _, rule = attacks.attacked(EVERY[name], jnp.asarray(bad), None_work(), aggregators.median())
        state = rule.init(jax.tree.map(lambda x: x[0], tree_of(V)))
        aggregate, _, _ = rule.finish(rule.collect(tree_of(V), cohort(), state), state, jax.random.key(0))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(aggregate))


def test_a_strength_may_be_a_tracer():
    def attacked_mean(scale):
        _, rule = attacks.attacked(attacks.ipm(scale), jnp.asarray(BAD), None_work(), aggregators.mean())
        state = rule.init(jax.tree.map(lambda x: x[0], tree_of(stack())))
        return rule.finish(rule.collect(tree_of(stack()), cohort(), state), state, jax.random.key(0))[0]

    scales, V = jnp.array([0.5, 5.0]), stack()
    results = jax.jit(jax.vmap(attacked_mean))(scales)
    for i, scale in enumerate(scales):
        expected = (V[HONEST].sum(0) - F * float(scale) * mean(V)) / PRESENT
        np.testing.assert_allclose(flat(results)[i], expected, rtol=1e-9)


def test_half_precision_comes_back_as_it_went():
    _, rule = attacks.attacked(attacks.alie(), jnp.asarray(BAD), None_work(), everything())
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree_of(stack()))
    state = rule.init(jax.tree.map(lambda x: x[0], half))
    sent = rule.finish(rule.collect(half, cohort(), state), state, jax.random.key(0))[0]
    assert {x.dtype for x in jax.tree.leaves(sent)} == {jnp.dtype(jnp.bfloat16)}


# Who is Byzantine


def test_who_is_byzantine():
    drawn = [np.asarray(attacks.byzantine(f, 20, seed=3)) for f in range(21)]
    assert [d.sum() for d in drawn] == list(range(21))
    assert all((few <= many).all() for few, many in zip(drawn, drawn[1:]))
    assert (np.asarray(attacks.byzantine(5, 20, seed=4)) != drawn[5]).any()
    np.testing.assert_array_equal(jax.vmap(lambda f: attacks.byzantine(f, 20, seed=3))(jnp.arange(21)), drawn)
    assert np.flatnonzero(attacks.byzantine(2, 5, ids=[4, 1])).tolist() == [1, 4]
    assert np.flatnonzero(attacks.byzantine(2, 5, ids=np.array([4, 1]))).tolist() == [1, 4]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: attacks.byzantine(-1, 5), "num_byzantine must be a whole number of at least 0, got -1"),
        (lambda: attacks.byzantine(6, 5), "num_byzantine=6 is more than the population of 5: lower it"),
        (lambda: attacks.byzantine(2, 5, ids=[1, 1]), "ids must be different client ids from 0 to 4"),
        (lambda: attacks.byzantine(1, 5, ids=[5]), "ids must be different client ids from 0 to 4"),
        (lambda: attacks.byzantine(1, 5, ids=[1, 2]), "num_byzantine=1, but 2 ids are given"),
        (lambda: attacks.attacked(attacks.ipm(), jnp.array([1, 2]), None_work(), aggregators.mean()), "truth values"),
        (lambda: attacks.ipm(-1.0), "ipm: scale must be finite and not negative, got -1.0"),
        (lambda: attacks.gaussian(float("nan")), "gaussian: std must be finite"),
        (lambda: attacks.alie(float("inf")), "alie: z must be finite, got inf"),
        (lambda: attacks.min_max("up"), 'min_max: direction must be "unit", "std" or "sign", got \'up\''),
        (lambda: attacks.mimic(1.5), "mimic: warmup must be a whole number"),
        (lambda: attacks.label_flip(1), "label_flip: classes must be a whole number of at least 2, got 1"),
        (lambda: attacks.label_flip(10, to=10), "label_flip: to=10 is none of the 10 classes"),
        (lambda: attacks.backdoor(fraction=0.0), r"backdoor: fraction must be in \(0, 1\], got 0.0"),
        (lambda: attacks.worst_case(budget=0.0), "worst_case: budget must be positive and finite, got 0.0"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Data


def images(clients, per_client, seed=0):
    """Two classes of 6 x 6 images, as vectors: bright above or bright below."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(clients):
        y = rng.integers(0, 2, per_client)
        x = rng.normal(0, 0.3, (per_client, 6, 6))
        x[y == 0, :3] += 1
        x[y == 1, 3:] += 1
        rows.append({"x": x.reshape(per_client, 36).astype(np.float32), "y": y.astype(np.int32)})
    return fl.FederatedData.from_clients(rows)


def trained(attack, bad, rounds=15):
    """(metrics of the evaluation, the first round's parameters) of a federated softmax regression under attack."""
    with jax.enable_x64(False):
        model = fl.models.mlp((), classes=2)
        loss_fn = fl.models.supervised(model)
        work = fl.sgd_work(loss_fn, optax.sgd(0.3))
        work, rule = attacks.attacked(attack, jnp.asarray(bad), work, aggregators.mean())
        algorithm = fl.federate(work, rule, fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(10), population=len(bad))
        train, test = images(len(bad), 30), images(1, 200, seed=1)
        params = model.init(jax.random.key(0), jax.tree.map(lambda x: x[0], train.examples))
        state, _ = fl.simulate(algorithm, train, params, fl.sampling.everyone(), rounds=rounds, key=jax.random.key(0))
        sums = fl.evaluate(attacks.measured(loss_fn, attack, model), algorithm.params(state), test)
        return {name: float(x.total.sum() / x.count.sum()) for name, x in sums.items()}, sums, algorithm.params(state)


def test_a_backdoor_is_learned_and_measured_on_other_classes_only():
    attack, bad = attacks.backdoor(target=1, size=2, value=3.0, boost=3.0), np.arange(5) == 2
    clean, _, _ = trained(attack, np.zeros(5, bool))
    dirty, sums, _ = trained(attack, bad)
    assert clean["attack_success"] < 0.2 < 0.8 < dirty["attack_success"] and min(clean["accuracy"], dirty["accuracy"]) > 0.9
    others = int((np.asarray(images(1, 200, seed=1).examples["y"]) != 1).sum())
    assert sums["attack_success"].count.sum() == others and sums["accuracy"].count.sum() == 200


def test_flipped_labels_are_learned_and_measured():
    attack = attacks.label_flip(classes=2)
    clean, _, _ = trained(attack, np.zeros(5, bool))
    dirty, _, _ = trained(attack, np.arange(5) < 4)
    assert clean["attack_success"] == pytest.approx(1 - clean["accuracy"]) and clean["attack_success"] < 0.1
    assert dirty["attack_success"] == pytest.approx(1 - dirty["accuracy"], abs=1e-6) and dirty["attack_success"] > 0.9


def test_unattacked_training_is_the_same_to_the_bit():
    """Poisoned client work with nobody Byzantine, and a client that is honest beside one that is not."""
    attack = attacks.label_flip(classes=2)
    _, _, with_nobody = trained(attack, np.zeros(5, bool), rounds=2)
    _, _, plain = trained(fl.attacks.Attack(), np.zeros(5, bool), rounds=2)
    jax.tree.map(np.testing.assert_array_equal, with_nobody, plain)


def test_a_patch_on_images_and_on_vectors():
    poison = attacks.backdoor(target=1, fraction=1.0, size=2, value=9.0)
    square = {"x": jnp.zeros((4, 5, 5, 1)), "y": jnp.array([0, 1, 2, 3])}
    shown = poison.examples(square, jax.random.key(0))
    expected = np.zeros((5, 5))
    expected[3:, 3:] = 9
    assert shown["y"].tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(shown["x"][2, ..., 0], expected)
    vectors = poison.examples(square | {"x": square["x"].reshape(4, 25)}, jax.random.key(0))
    np.testing.assert_array_equal(vectors["x"][2].reshape(5, 5), expected)
    for shape in ((4, 24), (4, 1, 5), (4,)):
        with pytest.raises(ValueError, match="patch of 2 x 2 pixels needs images"):
            poison.trigger(square | {"x": jnp.zeros(shape)})


def test_the_fraction_of_poisoned_examples():
    many = {"x": jnp.zeros((20_000, 9)), "y": jnp.zeros(20_000, jnp.int32)}
    share = float(attacks.backdoor(target=1, fraction=0.3).examples(many, jax.random.key(0))["y"].mean())
    assert abs(share - 0.3) < 0.015


def test_metrics_over_some_examples_must_be_one_an_example_too():
    loss = lambda params, batch, key: (batch["x"], {"some": fl.Mean(jnp.zeros(3), jnp.ones(()))})  # noqa: E731
    data = fl.FederatedData.from_clients([{"x": np.zeros(3)}])
    with pytest.raises(ValueError, match=r"one some an example, shape \(3,\), got \(\)"):
        fl.evaluate(loss, 0.0, data, batch=3)


# The worst case


def harm(rule, attack, V):
    """How far an attack within the budget moves the aggregate from the honest mean."""
    _, attacked = attacks.attacked(attack, jnp.asarray(BAD), None_work(), rule)
    state = attacked.init(jax.tree.map(lambda x: x[0], tree_of(V)))
    aggregate = attacked.finish(attacked.collect(tree_of(V), cohort(), state), state, jax.random.key(0))[0]
    return np.linalg.norm(flat(jax.tree.map(lambda x: x[None], aggregate))[0] - mean(V))


def spread(V):
    return np.sqrt(np.mean(np.sum((V[HONEST] - mean(V)) ** 2, axis=1)))


def within(attack, V, budget=1.0):
    """Another attack's message, cut to the budget."""
    sent = received(attack, V)[BAD]
    offset = sent - mean(V)
    cut = mean(V) + offset * np.minimum(1, budget * spread(V) / np.linalg.norm(offset, axis=1))[:, None]
    return attacks.Attack(lambda seen, state: (jax.tree.map(lambda x: x.at[np.flatnonzero(BAD)].set(0), seen.messages), state)), cut


RULES = {
    "median": aggregators.median(),
    "trimmed_mean": aggregators.trimmed_mean(F),
    "geometric_median": aggregators.geometric_median(weights="uniform"),
    "nnm": aggregators.nnm(aggregators.trimmed_mean(F), F),
}


@pytest.mark.parametrize("name", RULES)
def test_the_worst_case_is_worse_than_known_directions_and_within_its_budget(name):
    V = stack(4)
    worst = attacks.worst_case(budget=1.0, steps=15)
    for other in (attacks.opposite_mean(), attacks.ipm(5.0), attacks.alie(1.5)):
        _, cut = within(other, V)

        def send(seen, state, cut=cut):
            forged = np.where(BAD[:, None], 0.0, 0.0) + np.zeros((CLIENTS, 7))
            forged[BAD] = cut
            return tree_of(forged), state

        assert harm(RULES[name], worst, V) >= harm(RULES[name], attacks.Attack(send), V) - 1e-9
    _, rule = attacks.attacked(worst, jnp.asarray(BAD), None_work(), everything())
    assert harm(RULES[name], worst, V) > 0


def test_the_worst_case_of_the_mean_is_its_closed_form():
    V = stack(2)
    moved = harm(aggregators.mean(), attacks.worst_case(budget=2.0, steps=5), V)
    assert moved == pytest.approx(F / PRESENT * 2 * spread(V), rel=1e-3)
