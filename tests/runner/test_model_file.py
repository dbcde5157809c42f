"""A model that a run has written is read back as the tree it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from segments import run

import fedjax_lite as fl
from fedjax_lite.runner.model_file import save_params

MODEL = {"Dense_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "scales": [np.float32(2), jnp.ones(2, jnp.bfloat16)]}


def test_the_tree_comes_back(tmp_path):
    save_params(tmp_path, MODEL)
    for path in (tmp_path, str(tmp_path / "params.safetensors")):
        for like in (jax.tree.map(jnp.zeros_like, MODEL), jax.eval_shape(lambda: MODEL)):
            jax.tree.map(
                lambda x, y: np.testing.assert_array_equal(x, y, strict=True), fl.load_params(path, like), jax.tree.map(jnp.asarray, MODEL)
            )


def test_the_model_of_a_run_comes_back(tmp_path):
    result = run(rounds=3, out=tmp_path / "run")
    np.testing.assert_array_equal(fl.load_params(tmp_path / "run", result.params), result.params)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (MODEL | {"more": np.zeros(1, np.float32)}, r"leaf 'more' should be float32\[1\], the file has no such leaf: give the model that"),
        ({"scales": MODEL["scales"]}, "also has the leaf 'Dense_0/kernel': give the model that the run trained"),
        (MODEL | {"Dense_0": {"kernel": np.zeros((3, 2), np.float32)}}, r"should be float32\[3, 2\], the file has float32\[2, 3\]"),
        (MODEL | {"Dense_0": {"kernel": np.zeros((2, 3), np.int32)}}, r"should be int32\[2, 3\], the file has float32\[2, 3\]"),
    ],
)
def test_another_model_is_named(like, message, tmp_path):
    save_params(tmp_path, MODEL)
    with pytest.raises(ValueError, match=message):
        fl.load_params(tmp_path, like)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "params.safetensors").write_bytes(b"no")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="cannot be read"):
            fl.load_params(path, MODEL)
