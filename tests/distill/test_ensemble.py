"""Soft labels of an ensemble, and a student that learns them, against NumPy, scipy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

import fedjax_lite as fl
from fedjax_lite import aggregators, distill

CLIENTS, EXAMPLES, CLASSES = 5, 7, 4
LOGITS = np.random.default_rng(0).normal(scale=3.0, size=(CLIENTS, EXAMPLES, CLASSES)).astype(np.float32)
SIZES = np.array([1, 2, 3, 4, 10])
COUNTS = np.array([[3, 0, 1, 0], [0, 0, 2, 0], [1, 0, 1, 0], [5, 0, 0, 0], [1, 0, 1, 2]])
LABELS = np.array([0, 1, 2, 3, -1, -1, 0])


def cohort(present=(1,) * CLIENTS):
    return fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES), jnp.arange(CLIENTS), jnp.asarray(present, jnp.float32) > 0)


def pooled(ensemble, aggregator=None, present=(1,) * CLIENTS, logits=LOGITS):
    aggregator, clients = aggregator or aggregators.mean(), cohort(present)

    @jax.jit
    def run(logits, clients):
        said = jax.vmap(ensemble.say)(logits, clients)
        state = aggregator.init(jax.tree.map(lambda x: x[0], said))
        return ensemble.target(aggregator.finish(aggregator.collect(said, clients, state), state, jax.random.key(0))[0])

    return np.asarray(run(jnp.asarray(logits), clients))


def softmax(z):
    return scipy.special.softmax(np.asarray(z, float), axis=-1)


P = softmax(LOGITS)


def certainty():
    return 1 - scipy.stats.entropy(P, axis=-1) / np.log(CLASSES)


def accuracy():
    known = LABELS >= 0
    return np.mean(LOGITS.argmax(-1)[:, known] == LABELS[known], axis=-1)


def by_class(values, absent):
    """Weighted by class counts; class 1 nobody has."""
    found = np.full((EXAMPLES, CLASSES), absent)
    for c in range(CLASSES):
        if COUNTS[:, c].any():
            found[:, c] = (COUNTS[:, c, None] * values[:, :, c]).sum(0) / COUNTS[:, c].sum()
    return found


MEAN, WEIGHTED = aggregators.mean(), aggregators.weighted_mean()
RULES = {
    "logits": (distill.mean_logits(), MEAN, lambda: softmax(LOGITS.mean(0))),
    "logits, T 3": (distill.mean_logits(3.0), MEAN, lambda: softmax(LOGITS.mean(0) / 3)),
    "logits by examples": (distill.mean_logits(), WEIGHTED, lambda: softmax(np.average(LOGITS, axis=0, weights=SIZES))),
    "median of logits": (distill.mean_logits(), aggregators.median(), lambda: softmax(np.median(LOGITS, axis=0))),
    "probabilities": (distill.mean_probabilities(), MEAN, lambda: P.mean(0)),
    "probabilities, T 3": (distill.mean_probabilities(3.0), MEAN, lambda: softmax(LOGITS / 3).mean(0)),
    "trimmed probabilities": (
        distill.mean_probabilities(),
        aggregators.trimmed_mean(1),
        lambda: (lambda t: t / t.sum(-1, keepdims=True))(scipy.stats.trim_mean(P, 1 / CLIENTS, axis=0)),
    ),
    "sharpened": (distill.sharpened(0.1), MEAN, lambda: softmax(P.mean(0) / 0.1)),
    "logits by certainty": (
        distill.mean_logits(weigh=distill.by_certainty()),
        MEAN,
        lambda: softmax(np.sum(certainty()[..., None] * LOGITS, 0) / certainty().sum(0)[..., None]),
    ),
    "probabilities by certainty and examples": (
        distill.mean_probabilities(weigh=distill.by_certainty()),
        WEIGHTED,
        lambda: np.sum((SIZES[:, None] * certainty())[..., None] * P, 0) / (SIZES[:, None] * certainty()).sum(0)[..., None],
    ),
    "logits by class counts": (
        distill.mean_logits(weigh=distill.by_class_counts(COUNTS)),
        MEAN,
        lambda: softmax(by_class(LOGITS, -np.inf)),
    ),
    "probabilities by class counts": (
        distill.mean_probabilities(weigh=distill.by_class_counts(COUNTS)),
        MEAN,
        lambda: (lambda t: t / t.sum(-1, keepdims=True))(by_class(P, 0.0)),
    ),
    "logits by accuracy": (
        distill.mean_logits(weigh=distill.by_accuracy(LABELS, power=2.0)),
        MEAN,
        lambda: softmax(np.average(LOGITS, axis=0, weights=accuracy() ** 2)),
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_soft_labels_are_numpys(name):
    ensemble, aggregator, oracle = RULES[name]
    found = pooled(ensemble, aggregator)
    np.testing.assert_allclose(found, oracle(), atol=2e-6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_an_empty_slot_has_no_say_whatever_it_holds(name):
    ensemble, aggregator, _ = RULES[name]
    present, garbage = np.array([1, 1, 0, 1, 1]), LOGITS.copy()
    garbage[2] = np.nan
    np.testing.assert_array_equal(
        pooled(ensemble, aggregator, present, garbage), pooled(ensemble, aggregator, present, np.where(np.isnan(garbage), 0, garbage))
    )


def test_what_nobody_may_speak_of_has_no_soft_label():
    """Two clients that saw class 0 alone: probability 1 for it; without any client that saw a class, no label."""
    counts = np.array([[1, 0, 0, 0]] * 2 + [[0, 0, 0, 0]] * 3)
    for rule in (distill.mean_logits, distill.mean_probabilities):
        ensemble = rule(weigh=distill.by_class_counts(counts))
        np.testing.assert_allclose(pooled(ensemble), np.tile([1.0, 0, 0, 0], (EXAMPLES, 1)), atol=1e-6)
        np.testing.assert_array_equal(pooled(ensemble, present=(0, 0, 1, 1, 1)), np.zeros((EXAMPLES, CLASSES)))


@pytest.mark.parametrize("temperature", [1.0, 3.0, 0.5])
def test_the_loss_is_scipys_and_its_gradient_the_closed_form(temperature):
    rng = np.random.default_rng(1)
    student, q = rng.normal(size=(EXAMPLES, CLASSES)), softmax(rng.normal(size=(EXAMPLES, CLASSES)))
    q[0], q[1] = 0, [1, 0, 0, 0]  # no label, and a hard one
    p = softmax(student / temperature)
    with jax.enable_x64(True):
        losses = distill.distillation_loss(jnp.asarray(student), jnp.asarray(q), temperature)
        gradient = jax.grad(lambda s: distill.distillation_loss(s, jnp.asarray(q), temperature).sum())(jnp.asarray(student))
    np.testing.assert_allclose(losses, temperature**2 * scipy.special.rel_entr(q, p).sum(-1), rtol=1e-6, atol=1e-9)
    expected = temperature * (p - q)
    expected[0] = 0
    np.testing.assert_allclose(gradient, expected, atol=1e-9)


# The student

X = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
TEACHER = np.random.default_rng(3).normal(size=(3, CLASSES)).astype(np.float32)
TARGET = softmax(X @ TEACHER).astype(np.float32)


def linear(params, batch, key):
    del key
    return batch["x"] @ params


def learn(how, key=0, target=TARGET, params=None):
    params = jnp.zeros((3, CLASSES)) if params is None else params
    run = jax.jit(lambda p, t: distill.taught(how, linear, p, {"x": jnp.asarray(X)}, t, jax.random.key(key)))
    return run(params, jnp.asarray(target))


def test_a_single_teacher_is_matched():
    params, steps, loss = learn(distill.lessons(optax.adam(optax.cosine_decay_schedule(0.3, 600)), 600, batch_size=10))
    assert steps == 600 and loss < 1e-5
    centered = lambda w: w - w.mean(-1, keepdims=True)  # noqa: E731  # a softmax does not see a common shift
    np.testing.assert_allclose(centered(np.asarray(params)), centered(TEACHER), atol=1e-2)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_full_batches_are_gradient_descent_by_hand(temperature):
    q = softmax(X @ TEACHER / temperature)
    w, losses = np.zeros((3, CLASSES)), []
    for _ in range(5):
        p = softmax(X @ w / temperature)
        losses.append(temperature**2 * scipy.special.rel_entr(q, p).sum(-1).mean())
        w = w - 0.1 * X.T @ (temperature * (p - q)) / len(X)
    params, _, loss = learn(distill.lessons(optax.sgd(0.1), 5, batch_size=1000, temperature=temperature), target=q.astype(np.float32))
    np.testing.assert_allclose(params, w, atol=1e-5)
    assert loss == pytest.approx(losses[-1], rel=1e-4)


def test_each_epoch_sees_every_example_once_in_an_order_of_its_own():
    """With a rate of 1 and a model that counts, what is learned is which examples were seen."""

    def counting(params, batch, key):
        return jnp.take(params, batch["row"], axis=0)

    rows, q = jnp.arange(12), jax.nn.one_hot(jnp.zeros(12, int), 2)

    def moved(steps, key):
        how = distill.lessons(optax.sgd(1.0), steps, batch_size=4)
        return np.asarray(distill.taught(how, counting, jnp.zeros((12, 2)), {"row": rows}, q, jax.random.key(key))[0])[:, 0]

    once = moved(3, 0)
    assert (once > 0).all() and np.ptp(once) < 1e-6
    assert (moved(1, 0) > 0).sum() == 4 and ((moved(1, 0) > 0) != (moved(1, 1) > 0)).any()
    assert ((moved(4, 0) > once[0] * 1.01) != (moved(1, 0) > 0)).any()


def test_early_stopping_keeps_the_best_and_looks_at_what_is_held_out_alone():
    """Soft labels of the last ten rows are the opposite of the others': what is learned makes them worse from the start."""
    target = TARGET.copy()
    target[30:] = softmax(-X[30:] @ TEACHER)
    how = distill.lessons(optax.sgd(0.1), 100, batch_size=30, held_out=10, every=5, patience=20)
    start = jnp.asarray(0.1 * np.random.default_rng(5).normal(size=(3, CLASSES)), jnp.float32)
    params, steps, loss = learn(how, target=target, params=start)
    assert steps == 20  # four looks without a better one
    np.testing.assert_array_equal(params, start)
    assert loss == pytest.approx(scipy.special.rel_entr(target[30:], softmax(X[30:] @ np.asarray(start))).sum(-1).mean(), rel=1e-4)
    params, steps, loss = learn(how)  # the same labels for all: it goes on to the end
    assert steps == 100 and loss < 0.5 * np.log(CLASSES)
    unstopped = distill.lessons(optax.sgd(0.1), 100, batch_size=30, held_out=10, every=33, patience=1000)
    np.testing.assert_allclose(learn(unstopped)[0], params, atol=1e-6)  # the last stretch is shorter


def test_rows_without_a_soft_label_are_passed_over():
    masked, q = TARGET.copy(), TARGET.copy()
    masked[:20] = 0
    how = distill.lessons(optax.sgd(0.1), 5, batch_size=40)
    w = np.zeros((3, CLASSES))
    for _ in range(5):
        w = w - 0.1 * X[20:].T @ (softmax(X[20:] @ w) - q[20:]) / 20
    np.testing.assert_allclose(learn(how, target=masked)[0], w, atol=1e-5)
    np.testing.assert_array_equal(learn(how, target=0 * q)[0], np.zeros((3, CLASSES)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: distill.mean_logits(0.0), "mean_logits: temperature must be positive and finite, got 0.0"),
        (lambda: distill.mean_probabilities(-1.0), "mean_probabilities: temperature must be positive"),
        (lambda: distill.sharpened(0.0), "sharpened: temperature must be positive"),
        (lambda: distill.sharpened(1.5), "sharpened: temperature must be at most 1, or it blurs the soft labels, got 1.5"),
        (lambda: distill.by_class_counts(np.zeros((3, 2))), "by_class_counts: counts must be .* not all 0"),
        (lambda: distill.by_accuracy(np.full(3, -1)), "by_accuracy: labels must be"),
        (lambda: distill.lessons(optax.sgd(0.1), 0), "lessons: steps must be a whole number of at least 1, got 0"),
        (lambda: distill.lessons(optax.sgd(0.1), 10, temperature=0.0), "lessons: temperature must be positive"),
        (lambda: learn(distill.lessons(optax.sgd(0.1), 1, held_out=40)), "held_out=40 of 40 public examples leaves none"),
        (lambda: learn(distill.lessons(optax.sgd(0.1), 1), target=TARGET[:7]), "7 soft labels for public examples of leading axes"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
