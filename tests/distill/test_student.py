"""A student that learns soft labels: gradient descent by hand, orders, early stopping, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from fedjax_lite import distill

CLASSES = 4
X = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
TEACHER = np.random.default_rng(3).normal(size=(3, CLASSES)).astype(np.float32)


def softmax(z):
    return scipy.special.softmax(np.asarray(z, float), axis=-1)


TARGET = softmax(X @ TEACHER).astype(np.float32)
ZEROS = np.zeros((3, CLASSES), np.float32)


def linear(params, batch, key):
    del key
    return batch["x"] @ params


@functools.cache
def program(how):
    """The student after lessons on its parameters, the soft labels and a key; compiled."""
    return jax.jit(lambda params, target, key: distill.teach(how, linear, params, {"x": jnp.asarray(X)}, target, jax.random.key(key)))


def learn(how, key=0, target=TARGET, params=ZEROS):
    return program(how)(params, target, key)


def test_a_single_teacher_is_matched():
    params, steps, loss = learn(distill.lessons(optax.sgd(optax.cosine_decay_schedule(10.0, 600)), 600, batch_size=10))
    assert steps == 600 and loss < 1e-5
    centered = lambda w: w - w.mean(-1, keepdims=True)  # noqa: E731  # a softmax does not see a common shift
    np.testing.assert_allclose(centered(np.asarray(params)), centered(TEACHER), atol=1e-2)


def test_full_batches_are_gradient_descent_by_hand():
    @jax.jit
    def run(target, temperature):
        how = distill.lessons(optax.sgd(0.1), 5, batch_size=1000, temperature=temperature)
        return distill.teach(how, linear, jnp.asarray(ZEROS), {"x": jnp.asarray(X)}, target, jax.random.key(0))

    for temperature in (1.0, 2.0):
        q = softmax(X @ TEACHER / temperature)
        w, losses = np.zeros((3, CLASSES)), []
        for _ in range(5):
            p = softmax(X @ w / temperature)
            losses.append(temperature**2 * scipy.special.rel_entr(q, p).sum(-1).mean())
            w = w - 0.1 * X.T @ (temperature * (p - q)) / len(X)
        params, _, loss = run(q.astype(np.float32), temperature)
        np.testing.assert_allclose(params, w, atol=1e-5)
        assert loss == pytest.approx(losses[-1], rel=1e-4)


def test_each_epoch_sees_every_example_once_in_an_order_of_its_own():
    """With a rate of 1 and a model that counts, what is learned is which examples were seen."""

    def counting(params, batch, key):
        return jnp.take(params, batch["row"], axis=0)

    @jax.jit
    def moved(key):
        examples, q = {"row": jnp.arange(12)}, jnp.tile(jnp.array([[1.0, 0.0]]), (12, 1))
        each = [distill.lessons(optax.sgd(1.0), steps, batch_size=4) for steps in (1, 3, 4)]
        return [distill.teach(how, counting, jnp.zeros((12, 2)), examples, q, jax.random.key(key))[0][:, 0] for how in each]

    (one, once, twice), (other, _, _) = moved(0), moved(1)
    assert (once > 0).all() and np.ptp(once) < 1e-6
    assert (one > 0).sum() == 4 and ((one > 0) != (other > 0)).any()
    assert ((twice > once[0] * 1.01) != (one > 0)).any()


def test_early_stopping_keeps_the_best_and_looks_at_what_is_held_out_alone():
    """Soft labels of the last ten rows are the opposite of the others': what is learned makes them worse from the start."""
    target = TARGET.copy()
    target[30:] = softmax(-X[30:] @ TEACHER)
    how = distill.lessons(optax.sgd(0.1), 100, batch_size=30, held_out=10, every=5, patience=20)
    start = (0.1 * np.random.default_rng(5).normal(size=(3, CLASSES))).astype(np.float32)
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
        (lambda: distill.lessons(optax.sgd(0.1), 0), "lessons: steps must be a whole number of at least 1, got 0"),
        (lambda: distill.lessons(optax.sgd(0.1), 10, temperature=0.0), "lessons: temperature must be positive"),
        (lambda: learn(distill.lessons(optax.sgd(0.1), 1, held_out=40)), "held_out=40 of 40 public examples leaves none"),
        (lambda: learn(distill.lessons(optax.sgd(0.1), 1), target=TARGET[:7]), "7 soft labels for public examples of leading axes"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
