"""Parts of an epoch: whole batches, exactly; the same on every engine and from a study's arrays."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import SIZES, softmax_data, softmax_loss, softmax_params
from rounds import batches_of, trained

import fedjax_lite as fl

EPOCHS = "0.0001 0.01 0.1 0.2 0.25 0.3 0.35 0.5 0.57 0.7 0.9 0.9999 1.1 1.5 2.3 7.01 1000.1".split()
BATCHES = np.array([0, 1, 2, 3, 7, 10, 20, 100, 999, 1000, 2700, 10_000, 123_457])


def exact(epochs, batches):
    return [-(-Fraction(epochs) * int(b) // 1) for b in batches]


@pytest.mark.parametrize("epochs", EPOCHS)
def test_a_part_of_an_epoch_is_rounded_up_to_whole_batches(epochs):
    """0.1 of 10 batches is one, although the float is above a tenth; and a static bound is the steps of the largest client."""
    batches = fl.Batches(4, epochs=float(epochs))
    assert batches.steps_of(jnp.asarray(4 * BATCHES)).tolist() == exact(epochs, BATCHES)
    assert batches.steps_of(jnp.asarray(4 * BATCHES[1:] - 3)).tolist() == exact(epochs, BATCHES[1:])
    data = softmax_data(sizes=(5, 1, 40))
    assert batches.most_batches(data) == exact(epochs, [10])[0] and fl.Batches(4, float(epochs), before=2).most_batches(data) > 20


def test_thirds_are_thirds():
    assert [fl.Batches(1, epochs=k / 3).steps_of(jnp.int32(3)).item() for k in (1, 2, 4, 5)] == [1, 2, 4, 5]


def test_whole_numbers_stay_what_they_were():
    assert fl.Batches(4, epochs=2.0) == fl.Batches(4, epochs=2) and isinstance(fl.Batches(4, epochs=2.0).epochs, int)
    scheduled = fl.Batches(4, epochs=fl.on_round(lambda t: 1.4 + t))  # rounded to the nearest int, as ever
    assert [scheduled.steps_of(jnp.int32(9), t).item() for t in range(2)] == [3, 6]


def test_arrays_of_a_study_round_up_too():
    steps = jax.vmap(lambda epochs: fl.Batches(1, epochs=epochs).steps_of(jnp.array([10, 3])))(jnp.array([0.1, 0.5, 1.0, 1.5]))
    assert steps.tolist() == [[1, 1], [5, 2], [10, 3], [15, 5]]
    whole = jax.vmap(lambda epochs: fl.Batches(1, epochs=epochs).steps_of(jnp.array([10, 3])))(jnp.array([1, 2]))
    assert whole.tolist() == [[10, 3], [20, 6]]


def test_half_an_epoch_is_the_first_half_of_it():
    data, client = softmax_data(), 2  # of 12 examples
    assert SIZES[client] == 12
    rows = {}
    for epochs in (0.5, 1, 1.5):
        batches = fl.Batches(4, epochs=epochs)
        take = batches_of(data, batches)
        steps = batches.steps_of(jnp.int32(12)).item()
        rows[epochs] = [take(0, 0, client, step)[1].row.tolist() for step in range(steps)]
    assert [len(each) for each in rows.values()] == [2, 3, 5]
    assert rows[1][:2] == rows[0.5] and rows[1.5][:3] == rows[1]
    assert sorted(sum(rows[1], [])) == list(range(12)) and len(set(sum(rows[1.5][3:], []))) == 8


@pytest.mark.parametrize("epochs, engine", [(0.3, fl.padded()), pytest.param(1.5, fl.packed(2), marks=pytest.mark.deep)])
def test_engines_take_as_many_steps(epochs, engine):
    def after(engine):
        built = fl.algorithms.fedavg(
            softmax_loss, optax.sgd(0.1), batches=fl.Batches(4, epochs, shuffle=False), population=len(SIZES), engine=engine
        )
        return built.params(trained(built, softmax_data(), softmax_params(), [(0, 2, 4, 6)], 0)[0])

    np.testing.assert_allclose(after(engine), after(fl.sequential()), rtol=1e-5)
