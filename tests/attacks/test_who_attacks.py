"""Who is Byzantine, and the arguments that attacks refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attackers import NO_WORK

from fedjax_lite import aggregators, attacks


def test_who_is_byzantine():
    @jax.jit
    def drawn(numbers):
        return (
            jax.vmap(lambda f: attacks.byzantine(f, 20, seed=3))(numbers),
            attacks.byzantine(5, 20, seed=3),
            attacks.byzantine(5, 20, seed=4),
        )

    some, five, others = map(np.asarray, drawn(jnp.arange(21)))
    assert some.sum(axis=1).tolist() == list(range(21))
    assert (some[:-1] <= some[1:]).all()
    assert (five == some[5]).all() and (others != five).any()
    for ids in ([4, 1], np.array([4, 1])):
        assert np.flatnonzero(jax.jit(lambda ids=ids: attacks.byzantine(2, 5, ids=ids))()).tolist() == [1, 4]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: attacks.byzantine(-1, 5), "num_byzantine must be a whole number of at least 0, got -1"),
        (lambda: attacks.byzantine(6, 5), "num_byzantine=6 is more than the population of 5: lower it"),
        (lambda: attacks.byzantine(2, 5, ids=[1, 1]), "ids must be different client ids from 0 to 4"),
        (lambda: attacks.byzantine(1, 5, ids=[5]), "ids must be different client ids from 0 to 4"),
        (lambda: attacks.byzantine(1, 5, ids=[1, 2]), "num_byzantine=1, but 2 ids are given"),
        (lambda: attacks.attacked(attacks.ipm(), jnp.array([1, 2]), NO_WORK, aggregators.mean()), "truth values"),
        (lambda: attacks.ipm(-1.0), "ipm: scale must be finite and not negative, got -1.0"),
        (lambda: attacks.gaussian(float("nan")), "gaussian: std must be finite"),
        (lambda: attacks.alie(float("inf")), "alie: z must be finite, got inf"),
        (lambda: attacks.alie(True), "alie: z must be finite, got True"),
        (lambda: attacks.scaling(True), "scaling: factor must be finite, got True"),
        (lambda: attacks.backdoor(boost=float("nan")), "backdoor: boost must be finite, got nan"),
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
