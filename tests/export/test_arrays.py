"""Lists of arrays: their order, and what does not fit by its leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import fedjax_lite as fl
from fedjax_lite.runner.model_file import save_params

LEAVES = [jnp.full(k, k, jnp.float32) for k in range(12)]  # in a tree 2 comes before 10, among names behind
PARAMS = {"layers": LEAVES, "a-b": jnp.ones((2, 3)), "a": {"c": jnp.zeros((), jnp.bfloat16)}, "steps": jnp.int32(3)}


def test_arrays_lie_in_the_order_of_their_sorted_names(tmp_path):
    save_params(tmp_path, PARAMS)
    stored = load_file(tmp_path / "params.safetensors")
    found = fl.export.arrays(PARAMS)
    assert len(found) == len(stored) == 15 and all(type(x) is np.ndarray and x.flags.writeable for x in found)
    for x, name in zip(found, sorted(stored), strict=True):
        np.testing.assert_array_equal(x, stored[name], strict=True)


def test_they_come_back():
    for like in (PARAMS, jax.eval_shape(lambda: PARAMS)):
        found = fl.export.from_arrays(fl.export.arrays(PARAMS), like)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), found, jax.tree.map(jnp.asarray, PARAMS))
    wide = [x.astype(np.float64) if x.dtype != np.int32 else x for x in fl.export.arrays(PARAMS)]
    assert fl.export.from_arrays(wide, PARAMS)["a"]["c"].dtype == jnp.bfloat16
    assert fl.export.arrays({}) == [] and fl.export.from_arrays([], {}) == {}


def test_what_does_not_fit_is_named():
    like = {"Dense_0": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}}
    good = fl.export.arrays(like)
    with pytest.raises(ValueError, match="1 arrays for a model of 2 leaves: Dense_0/bias, Dense_0/kernel: give one for each, in order"):
        fl.export.from_arrays(good[:1], like)
    with pytest.raises(
        ValueError, match=r"arrays\[1\], which is the leaf 'Dense_0/kernel', should be float32\[2, 3\], and is float32\[3, 2\]"
    ):
        fl.export.from_arrays([good[0], good[1].T], like)
    with pytest.raises(
        ValueError, match=r"arrays\[0\], which is the leaf 'Dense_0/bias', should be float32\[3\], and is int64\[3\]: give the"
    ):
        fl.export.from_arrays([np.zeros(3, int), good[1]], like)
