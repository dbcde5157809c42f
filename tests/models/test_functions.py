"""A model of two functions: with and without a key, a mask, a leaf alone; what they must take and return."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite.models import from_functions, supervised
from fedjax_lite.models.loss_fn import facts_asked

BATCH = {"x": jnp.ones((4, 3)), "y": jnp.zeros(4, int)}


def init(key, example):
    return {"w": jax.random.normal(key, (example["x"].size, 2))}


def test_functions_of_all_leaves_are_given_the_key():
    model = from_functions(init, lambda params, batch, key: batch["x"] @ params["w"] + (0 if key is None else 1))
    params = model.init(jax.random.key(0), jax.tree.map(lambda x: x[0], BATCH))
    said = [model.apply(params, BATCH, key) for key in (None, jax.random.key(1))]
    np.testing.assert_allclose(said[1] - said[0], 1, rtol=1e-6)
    assert facts_asked(model.apply) == set()


def test_a_mask_where_it_is_asked_for():
    def apply(params, batch, key, mask=None):
        return batch["x"] @ params["w"] * jnp.broadcast_to(mask[:, None], (4, 2))

    loss_fn = supervised(from_functions(init, apply))
    losses, _ = loss_fn({"w": jnp.ones((3, 2)) * jnp.array([[1.0, 0.0]])}, BATCH, None, mask=jnp.array([True, True, False, False]))
    np.testing.assert_allclose(losses[:2], np.log1p(np.exp(-3)), rtol=1e-5)
    np.testing.assert_allclose(losses[2:], np.log(2), rtol=1e-5)


@pytest.mark.parametrize(
    "functions, kind, message",
    [
        ((3, lambda params, batch: 0), TypeError, "from_functions: init must be a function .key, example, .*, got 3"),
        ((lambda key: 0, lambda params, batch: 0), TypeError, "init must take key, example, and takes key"),
        ((init, lambda params: 0), TypeError, "apply must take params, batch, and takes params"),
    ],
)
def test_what_is_no_pair_of_functions(functions, kind, message):
    with pytest.raises(kind, match=message):
        from_functions(*functions)


def test_what_they_must_return():
    example = jax.tree.map(lambda x: x[0], BATCH)
    with pytest.raises(TypeError, match="init must return the arrays of a model, got None"):
        from_functions(lambda key, example: None, lambda params, batch: 0).init(jax.random.key(0), example)
    with pytest.raises(ValueError, match=r"init returns \['n'\] of int32, which has no gradient: close over it"):
        from_functions(lambda key, example: {"n": jnp.int32(3)}, lambda params, batch: 0).init(jax.random.key(0), example)
    with pytest.raises(ValueError, match=r"apply must return outputs \[batch, ...\], got \[2\] for 4 examples"):
        from_functions(init, lambda params, batch: jnp.zeros(2)).apply({}, BATCH, None)
    with pytest.raises(TypeError, match="apply must return an array, outputs .*, got 3"):
        from_functions(init, lambda params, batch: 3).apply({}, BATCH, None)
