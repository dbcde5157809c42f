"""What robust rules keep: the order of clients, shifts, scales and rotations of all messages, one message that all send, the mean.

For messages without ties, where the order of the slots decides."""

import numpy as np
from robust_rules import (
    RULES,
    SLOTS,
)
from robust_trials import (
    each_rule,
    fitting,
    keeping,
    of_rows,
)

DIMENSION = 3


def generic(n, f, scale=30.0):
    """Honest messages and, last, f far ones."""
    V = np.random.default_rng([n, f, 5]).normal(size=(n, DIMENSION))
    V[n - f :] *= scale
    return V


def assert_same(actual, expected, *case):
    np.testing.assert_allclose(actual, expected, 1e-7, 1e-7, err_msg=str(case))


@keeping("mean")
def test_without_byzantine_clients_it_is_the_mean(name):
    for n in range(RULES[name].plus, SLOTS):
        V = generic(n, n // 3)
        assert_same(of_rows(name, V, 0), V.mean(0), n)


def tied(name, n, f):
    """Where one neighbour counts, two messages that are each other's nearest have the same score, and the lower slot wins."""
    fewest = {"krum": n - f - 2, "krum byzfl": n - f - 1, "bulyan": f - 1 if f else n}
    return fewest.get(name, n) <= 1 and n > 1


@each_rule
def test_the_order_of_clients_does_not_matter(name):
    for n, f in fitting(name):
        if tied(name, n, f):
            continue
        V, order = generic(n, f), np.random.default_rng(n).permutation(n)
        if name in ("fltrust", "monna"):  # the trusted client stays where it is
            order = np.append(0, order[order != 0])
        assert_same(of_rows(name, V[order], f), of_rows(name, V, f), n, f)


@keeping("shift")
def test_a_shift_of_all_shifts_the_aggregate(name):
    for n, f in fitting(name):
        V, shift = generic(n, f), np.array([3.0, -20.0, 100.0])
        assert_same(of_rows(name, V + shift, f), of_rows(name, V, f) + shift, n, f)


@keeping("scale")
def test_a_scale_of_all_scales_the_aggregate(name):
    for n, f in fitting(name):
        V, scale = generic(n, f), (0.25, 37.0)[n % 2]  # the geometric median's smoothing stays, and shows at less than a thousandth
        assert_same(of_rows(name, scale * V, f) / scale, of_rows(name, V, f), n, f)


@keeping("turn")
def test_a_rotation_of_all_rotates_the_aggregate(name):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(DIMENSION, DIMENSION)))[0]
    for n, f in fitting(name):
        V = generic(n, f)
        assert_same(of_rows(name, V @ turn, f), of_rows(name, V, f) @ turn, n, f)


@keeping("same")
def test_equal_messages_give_that_message(name):
    one = np.array([0.1, -2.7, 1e5])
    for n, f in fitting(name):
        np.testing.assert_allclose(of_rows(name, np.tile(one, (n, 1)), f), one, 1e-12, err_msg=f"n={n} f={f}")
