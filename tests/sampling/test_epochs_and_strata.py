"""Shuffled epochs and strata, round by round."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite.sampling import shuffled, stratified

LABELS = np.array(["b", "a", "b", "b", "c", "b", "a", "b", "b", "c"])
SIZES = np.arange(1, 11, dtype=np.int32)
SAMPLERS = {
    "four": shuffled(4),
    "other seed": shuffled(4, seed=1),
    "even": shuffled(5),
    "proportional": stratified(5, LABELS),
    "equal": stratified(5, LABELS, "equal"),
    "numbers": stratified(2, [0, 1] * 5),
}


@functools.cache
def drawn():
    def one(t):
        found = {name: each(jax.random.fold_in(jax.random.key(0), t), jnp.asarray(SIZES), t) for name, each in SAMPLERS.items()}
        return {name: (each.id, each.weight) for name, each in found.items()}

    return jax.device_get(jax.jit(jax.vmap(one))(np.arange(60)))


@pytest.mark.parametrize("name, rounds", [("four", 3), ("other seed", 3), ("even", 2)])
def test_everyone_comes_once_before_anyone_comes_twice(name, rounds):
    ids, weight = drawn()[name]
    epochs = [ids[i : i + rounds][weight[i : i + rounds] > 0] for i in range(0, 60, rounds)]
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)  # each epoch has an order of its own
    assert weight[:rounds].sum(axis=1).tolist() == {3: [4, 4, 2], 2: [5, 5]}[rounds]


@pytest.mark.deep
def test_the_seed_names_the_orders_and_not_the_rounds_keys():
    again = jax.vmap(lambda t: SAMPLERS["four"](jax.random.fold_in(jax.random.key(9), t), jnp.asarray(SIZES), t).id)(np.arange(6))
    np.testing.assert_array_equal(again, drawn()["four"][0][:6])
    assert (drawn()["other seed"][0] != drawn()["four"][0]).any()


@pytest.mark.parametrize("name, numbers", [("proportional", {"a": 1, "b": 3, "c": 1}), ("equal", {"a": 2, "b": 2, "c": 1})])
def test_every_round_has_its_number_of_each_label(name, numbers):
    ids, weight = drawn()[name]
    assert (weight == 1).all() and all(len(set(row)) == 5 for row in ids.tolist())
    for label, number in numbers.items():
        assert ((LABELS[ids] == label).sum(axis=1) == number).all()


def test_labels_may_be_numbers():
    assert ((drawn()["numbers"][0] % 2).sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: shuffled(0), "shuffled: clients must be a whole number of at least 1, got 0"),
        (lambda: shuffled(2, -1), "shuffled: seed must be a whole number of at least 0, got -1"),
        (
            lambda: shuffled(11)(jax.random.key(0), jnp.asarray(SIZES), 0),
            "shuffled: clients=11 is more than the population of 10: lower it",
        ),
        (lambda: stratified(11, LABELS), "stratified: clients=11 is more than the population of 10"),
        (lambda: stratified(2, LABELS), "stratified: of clients=2 none has the label 'c', so that these never take part: raise it"),
        (lambda: stratified(9, LABELS, "equal"), "stratified: 3 of clients=9 would have the label 'a', which 2 have: lower it"),
        (lambda: stratified(2, "ab"), "stratified: labels must be a list with a label of each client, got ab"),
        (lambda: stratified(5, LABELS, "fair"), 'stratified: allocation must be "proportional" or "equal", got \'fair\''),
        (lambda: stratified(5, LABELS)(jax.random.key(0), jnp.ones(3), 0), "stratified: labels are of 10 clients, the population has 3"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
