"""Plain NumPy restatements of the papers' equations: loops over clients, no jax."""

import numpy as np


def softmax_regression_gradient(weights, x, y):
    """Gradient of the mean cross-entropy of logits x W."""
    logits = x @ weights
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return x.T @ p / len(y)


def softmax_regression_losses(weights, x, y):
    """Cross-entropy of each example."""
    logits = x @ weights
    top = logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0] - logits[np.arange(len(y)), y]


def local_sgd(weights, x, y, orders, batch, rate):
    """One pass of minibatch SGD per order of the examples; a short last batch is kept."""
    for order in orders:
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            weights = weights - rate * softmax_regression_gradient(weights, x[rows], y[rows])
    return weights


def weighted_mean(messages, weights):
    """sum w m / sum w, 0 without weight."""
    weights = np.asarray(weights, float)
    return np.tensordot(weights, messages, axes=1) / (weights.sum() or 1.0)


def trimmed_mean(messages, f):
    """Each coordinate's mean without its f smallest and f largest values; its median where nothing would be left."""
    n = len(messages)
    f = min(f, (n - 1) // 2)
    return np.sort(messages, axis=0)[f : n - f].mean(axis=0)


def slope(fn, params, step=1e-5):
    """The gradient of a function of a dict of arrays, by central differences."""
    found = {}
    for name, x in params.items():
        found[name] = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            nudge = np.zeros_like(x)
            nudge[index] = step
            found[name][index] = (fn(params | {name: x + nudge}) - fn(params | {name: x - nudge})) / (2 * step)
    return found


class Plateau:
    """The reduce-on-plateau rule of optax: an accumulated mean, a relative tolerance, a patience, a cooldown."""

    def __init__(self, factor, patience, rtol=1e-4, cooldown=0, accumulation_size=1):
        self.factor, self.patience, self.rtol, self.cooldown, self.window = factor, patience, rtol, cooldown, accumulation_size
        self.scale, self.best, self.waited, self.cooling, self.values = 1.0, np.inf, 0, 0, []

    def __call__(self, value):
        self.values.append(value)
        if len(self.values) < self.window:
            return self.scale
        mean, self.values = np.mean(self.values), []
        better = mean < (1 - self.rtol) * self.best
        self.best = mean if better else self.best
        if self.cooling:
            self.cooling, self.waited = self.cooling - 1, 0
            return self.scale
        self.waited = 0 if better else self.waited + 1
        if self.waited >= self.patience:
            self.scale, self.waited, self.cooling = self.scale * self.factor, 0, self.cooldown
        return self.scale
