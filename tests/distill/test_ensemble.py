"""Soft labels of an ensemble, and the loss of who learns them, against NumPy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
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
ALL = np.ones(CLIENTS, np.float32)


def pooled(ensemble, aggregator, logits, present):
    """The soft labels of what models say, of those that are there."""
    clients = fl.sampling.cohort(jax.random.key(0), jnp.asarray(SIZES), jnp.arange(CLIENTS), present > 0)
    said = jax.vmap(ensemble.say)(logits, clients)
    state = aggregator.init(jax.tree.map(lambda x: x[0], said))
    return ensemble.target(aggregator.finish(aggregator.collect(said, clients, state), state, jax.random.key(0))[0])


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


TWO_SAW_CLASS_0 = distill.by_class_counts(np.array([[1, 0, 0, 0]] * 2 + [[0, 0, 0, 0]] * 3))
FEW = {
    "logits": (distill.mean_logits(weigh=TWO_SAW_CLASS_0), MEAN, None),
    "probabilities": (distill.mean_probabilities(weigh=TWO_SAW_CLASS_0), MEAN, None),
}


def compiled(rules):
    """The soft labels by every rule, of what models say and who of them is there; one program."""
    return jax.jit(lambda *given: {name: pooled(ensemble, aggregator, *given) for name, (ensemble, aggregator, _) in rules.items()})


EVERY = compiled(RULES)


@pytest.mark.parametrize("name", RULES)
def test_soft_labels_are_numpys(name):
    found = np.asarray(EVERY(LOGITS, ALL)[name])
    np.testing.assert_allclose(found, RULES[name][2](), atol=2e-6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_an_empty_slot_has_no_say_whatever_it_holds(name):
    present, garbage, zeros = ALL.copy(), LOGITS.copy(), LOGITS.copy()
    present[2], garbage[2], zeros[2] = 0, np.nan, 0
    without = EVERY(garbage, present)[name]
    np.testing.assert_array_equal(without, EVERY(zeros, present)[name])
    assert np.isfinite(without).all() and not np.allclose(without, EVERY(LOGITS, ALL)[name])


def test_what_nobody_may_speak_of_has_no_soft_label():
    """Two clients that saw class 0 alone: probability 1 for it; without any client that saw a class, no label."""
    run = compiled(FEW)
    for found, none in zip(run(LOGITS, ALL).values(), run(LOGITS, np.float32([0, 0, 1, 1, 1])).values(), strict=True):
        np.testing.assert_allclose(found, np.tile([1.0, 0, 0, 0], (EXAMPLES, 1)), atol=1e-6)
        np.testing.assert_array_equal(none, np.zeros((EXAMPLES, CLASSES)))


def test_the_loss_is_scipys_and_its_gradient_the_closed_form(x64):
    rng = np.random.default_rng(1)
    student, q = rng.normal(size=(EXAMPLES, CLASSES)), softmax(rng.normal(size=(EXAMPLES, CLASSES)))
    q[0], q[1] = 0, [1, 0, 0, 0]  # no label, and a hard one

    @jax.jit
    def run(student, q, temperature):
        losses, back = jax.vjp(lambda s: distill.distillation_loss(s, q, temperature), student)
        return losses, back(jnp.ones_like(losses))[0]

    for temperature in (1.0, 3.0, 0.5):
        losses, gradient = run(student, q, temperature)
        p = softmax(student / temperature)
        np.testing.assert_allclose(losses, temperature**2 * scipy.special.rel_entr(q, p).sum(-1), rtol=1e-6, atol=1e-9)
        expected = temperature * (p - q)
        expected[0] = 0
        np.testing.assert_allclose(gradient, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: distill.mean_logits(0.0), "mean_logits: temperature must be positive and finite, got 0.0"),
        (lambda: distill.mean_probabilities(-1.0), "mean_probabilities: temperature must be positive"),
        (lambda: distill.sharpened(0.0), "sharpened: temperature must be positive"),
        (lambda: distill.sharpened(1.5), "sharpened: temperature must be at most 1, or it blurs the soft labels, got 1.5"),
        (lambda: distill.by_class_counts(np.zeros((3, 2))), "by_class_counts: counts must be .* not all 0"),
        (lambda: distill.by_accuracy(np.full(3, -1)), "by_accuracy: labels must be"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
