"""The robust rules as their papers state them: NumPy and loops, one function a rule, no jax.

`V` is `[n, d]`, the messages of the clients present, one a row; f of them may be Byzantine. Of equal candidates the lowest row wins.
"""

from itertools import combinations, permutations

import numpy as np


def squared_distance(a, b):
    """||a - b||^2, from the difference itself."""
    return float(np.sum((a - b) ** 2))


def lowest(scores, count):
    """The positions of the `count` lowest scores."""
    return sorted(range(len(scores)), key=lambda i: (scores[i], i))[:count]


# Coordinate by coordinate


def mean(V):
    return sum(V) / len(V)


def weighted_mean(V, a):
    return np.asarray(a) @ V / np.sum(a)


def median(V):
    """Yin et al. 2018, definition 1: the middle value, or the mean of the two in the middle."""
    out = []
    for column in V.T:
        values = sorted(column)
        out.append((values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2)
    return np.array(out)


def weighted_median(V, a):
    """The least value at which the weight of the values up to it reaches half of the total."""
    out = []
    for column in V.T:
        reached = 0.0
        for i in sorted(range(len(column)), key=lambda i: column[i]):
            reached += a[i]
            if 2 * reached >= sum(a):
                out.append(column[i])
                break
    return np.array(out)


def trimmed_mean(V, f):
    """Yin et al. 2018, definition 2: without the f smallest and the f largest values."""
    return np.array([np.mean(sorted(column)[f : len(column) - f]) for column in V.T])


def around_median(V, count):
    """The mean of the `count` values closest to the median."""
    middle = median(V)
    return np.array([np.mean([column[i] for i in lowest(np.abs(column - m), count)]) for column, m in zip(V.T, middle, strict=True)])


def meamed(V, f):
    """Xie, Koyejo and Gupta 2018, "Generalized Byzantine-tolerant SGD", mean around median."""
    return around_median(V, len(V) - f)


# By distances


def krum_scores(V, neighbors):
    """Each message's sum of squared distances to so many others, the nearest."""
    scores = []
    for i in range(len(V)):
        distances = sorted(squared_distance(V[i], V[j]) for j in range(len(V)) if j != i)
        scores.append(sum(distances[:neighbors]))
    return scores


def neighbors(n, f, count):
    """Blanchard et al. 2017 count n-f-2 neighbours; the package byzfl counts n-f-1."""
    return n - f - {"blanchard": 2, "byzfl": 1}[count]


def krum(V, f, count="blanchard"):
    """Blanchard et al. 2017, section 4: the message of least score."""
    return V[lowest(krum_scores(V, neighbors(len(V), f, count)), 1)[0]]


def multi_krum(V, f, selected=None, count="blanchard"):
    """The mean of the messages with the least scores."""
    selected = len(V) - f if selected is None else selected
    return mean(V[lowest(krum_scores(V, neighbors(len(V), f, count)), selected)])


def bulyan(V, f, order=None):
    """El Mhamdi et al. 2018, section 4, with Krum as the rule that selects, of equal scores the first in an order of the rows."""
    n = len(V)
    theta, left, selected = n - 2 * f, list(range(n) if order is None else order), []
    while len(selected) < theta:
        scores = krum_scores(V[left], max(len(left) - f - 2, 1))
        selected.append(left.pop(lowest(scores, 1)[0]))
    return around_median(V[sorted(selected)], theta - 2 * f)


def diameter(V):
    """The largest squared distance between two messages."""
    return max((squared_distance(a, b) for a, b in combinations(V, 2)), default=0.0)


def mda(V, f):
    """El Mhamdi et al. 2020, minimum diameter averaging: all sets of n-f, in the order of their members."""
    sets = [list(kept) for kept in combinations(range(len(V)), len(V) - f)]
    return mean(V[sets[lowest([diameter(V[kept]) for kept in sets], 1)[0]]])


def monna(V, f, trusted):
    """Farhadkhani et al. 2023: the mean of the n-f messages closest to the trusted one."""
    return mean(V[lowest([squared_distance(v, V[trusted]) for v in V], len(V) - f)])


def geometric_median(V, a, iterations=8, smoothing=1e-6):
    """Pillutla et al. 2022, algorithm 2: the smoothed Weiszfeld iteration from the weighted mean."""
    z = weighted_mean(V, a)
    for _ in range(iterations):
        z = weighted_mean(V, a / np.maximum(smoothing, np.linalg.norm(V - z, axis=1)))
    return z


def caf(V, f):
    """Allouah et al. 2025, algorithm 2, with the covariance of `[d, d]` and its exact eigenvectors.

    tau is compared with its maximum over the weights that are left: only then does each step set one weight to 0.
    """
    n = len(V)
    c, least, best = np.ones(n), np.inf, mean(V)
    while c.sum() > n - 2 * f:
        mu = weighted_mean(V, c)
        values, vectors = np.linalg.eigh(sum(c[i] * np.outer(V[i] - mu, V[i] - mu) for i in range(n)) / c.sum())
        if values[-1] < least:
            least, best = values[-1], mu
        tau = ((V - mu) @ vectors[:, -1]) ** 2
        if tau[c > 0].max() == 0:
            break
        c = np.maximum(c * (1 - tau / tau[c > 0].max()), 0)
    return best


# By lengths and signs


def shortened(v, most):
    norm = np.linalg.norm(v)
    return v if norm <= most else v * (most / norm)


def centered_clipping(V, v, radius, iterations=1):
    """Karimireddy, He and Jaggi 2021, algorithm 2; v is the last aggregate."""
    for _ in range(iterations):
        v = v + mean([shortened(x - v, radius) for x in V])
    return v


def norm_bounding(V, most):
    """Sun et al. 2019, section 3."""
    return mean([shortened(v, most) for v in V])


def votes(V):
    return np.array([sum(1 if x > 0 else -1 if x < 0 else 0 for x in column) for column in V.T])


def sign_majority(V, rate=1.0):
    """Bernstein et al. 2018, signSGD with majority vote."""
    return rate * np.sign(votes(V))


def rlr(V, a, threshold, rate=1.0):
    """Ozdayi, Kantarcioglu and Gel 2021: the rate of a coordinate with too few votes changes its sign."""
    return np.where(np.abs(votes(V)) >= threshold, rate, -rate) * weighted_mean(V, a)


def fltrust(V, trusted):
    """Cao et al. 2021, algorithm 2: `V[trusted]` is the server's own update."""
    g, total, out = V[trusted], 0.0, np.zeros(V.shape[1])
    for i, v in enumerate(V):
        if i != trusted and np.any(v) and np.any(g):
            trust = max(0.0, v @ g / np.linalg.norm(v) / np.linalg.norm(g))
            total, out = total + trust, out + trust * np.linalg.norm(g) / np.linalg.norm(v) * v
    return out / total if total > 0 else out


# Before another rule


def nnm(V, f):
    """Allouah et al. 2023, algorithm 2: every message becomes the mean of its n-f nearest, itself included."""
    return np.array([mean(V[lowest([squared_distance(v, other) for other in V], len(V) - f)]) for v in V])


def arc(V, f):
    """Allouah et al. 2025, algorithm 2: the floor(2f(n-f)/n) longest are cut to the length of the next."""
    n, norms = len(V), np.linalg.norm(V, axis=1)
    k = 2 * f * (n - f) // n
    order = lowest(-norms, n)
    out = np.array(V)
    for i in order[:k]:
        out[i] = shortened(V[i], norms[order[k]])
    return out


def buckets(V, order, size):
    """Karimireddy, He and Jaggi 2022, algorithm 1, for one order: the means and the members of the buckets."""
    members = [list(order[i : i + size]) for i in range(0, len(order), size)]
    return np.array([mean(V[m]) for m in members]), members


def bucketings(n, size):
    """Every way to deal n clients into buckets, as orders: the sets and their places matter, not the order inside one."""
    seen = {}
    for order in permutations(range(n)):
        seen.setdefault(tuple(frozenset(order[i : i + size]) for i in range(0, n, size)), order)
    return list(seen.values())
