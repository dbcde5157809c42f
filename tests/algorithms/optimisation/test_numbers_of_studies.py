"""The numbers of every method may be a study's: mapped over, they are not looked at when the method is built."""

import jax
import jax.numpy as jnp
import optax
import pytest
import quadratics
from quadratics import A4, trajectory

import fedjax_lite as fl

NUMBERS = {
    "fedcm": "learning_rate server_learning_rate alpha rho",
    "fedsam": "learning_rate server_learning_rate rho",
    "fedspeed": "learning_rate server_learning_rate rho lam a",
    "fedadmm": "learning_rate server_learning_rate rho",
    "scaffnew": "learning_rate p",
    "fedlion": "learning_rate server_learning_rate b1 b2",
}


@pytest.mark.deep
@pytest.mark.parametrize("name", NUMBERS)
def test_a_study_maps_over_all_of_them(name):
    names = NUMBERS[name].split()
    optimizer = (optax.sgd,) if name == "fedsam" else ()

    def models(*numbers):
        options = dict(zip(names, numbers, strict=True)) | {"batches": quadratics.batches(A4), "population": 3}
        return trajectory(getattr(fl.algorithms, name)(quadratics.loss_fn, *optimizer, **options), A4, 2)[1]

    assert jax.eval_shape(jax.vmap(models), *jnp.full((len(names), 4), 0.5)).shape == (4, 2, 2)
