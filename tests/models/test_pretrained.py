"""A start from a safetensors file: names, layouts, and every mismatch by name."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import fedjax_lite as fl
from fedjax_lite.data.error import DataError

RNG = np.random.default_rng(0)
TORCH = {
    "body.0.weight": RNG.normal(size=(5, 3, 2, 4)).astype(np.float32),  # out, in, height, width
    "body.0.bias": RNG.normal(size=5).astype(np.float32),
    "head.weight": RNG.normal(size=(6, 5)).astype(np.float32),  # out, in
    "head.bias": RNG.normal(size=6).astype(np.float32),
    "words.weight": RNG.normal(size=(9, 7)).astype(np.float32),  # a table of vectors, of one layout
    "num_batches_tracked": np.array([3]),
}
LIKE = {
    "Conv_0": {"kernel": jnp.zeros((2, 4, 3, 5)), "bias": jnp.zeros(5)},
    "Dense_0": {"kernel": jnp.zeros((5, 6)), "bias": jnp.zeros(6)},
    "Embed_0": {"embedding": jnp.zeros((9, 7))},
}
NAMES = {
    r"body\.(\d+)\.weight": r"Conv_\1/kernel",
    r"body\.(\d+)\.bias": r"Conv_\1/bias",
    r"head\.weight": "Dense_0/kernel",
    r"head\.(.*)": r"Dense_0/\1",
    r"words\..*": "Embed_0/embedding",
    "num_batches_tracked": "",
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "torch.safetensors"
    save_file(TORCH, path)
    return path


def test_torchs_names_and_layouts(file):
    """The same outputs as torch's, computed by NumPy: a dense layer x W^T + b, a convolution of one window."""
    found = fl.models.pretrained(LIKE, file, names=NAMES, transpose=".*/kernel")
    x = RNG.normal(size=(1, 2, 4, 3)).astype(np.float32)  # one window: height, width, in
    h = jax.lax.conv_general_dilated(x, found["Conv_0"]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    wanted = np.einsum("bhwi,oihw->bo", x, TORCH["body.0.weight"])
    np.testing.assert_allclose(h[:, 0, 0], wanted, rtol=1e-4)
    np.testing.assert_allclose(wanted @ np.asarray(found["Dense_0"]["kernel"]), wanted @ TORCH["head.weight"].T, rtol=1e-6)
    assert (found["Embed_0"]["embedding"] == TORCH["words.weight"]).all() and (found["Conv_0"]["bias"] == TORCH["body.0.bias"]).all()


def test_every_mismatch_is_named(file):
    like = LIKE | {"Dense_0": {"kernel": jnp.zeros((5, 7)), "bias": jnp.zeros(6, int), "scale": jnp.zeros(1)}}
    with pytest.raises(ValueError) as error:
        fl.models.pretrained(like, file, names=NAMES, transpose=".*/kernel")
    for part in (
        "Dense_0/scale is not in the file",
        r"Dense_0/kernel is float32[5, 6] (of head.weight [6, 5]), the model has float32[5, 7]",
        "Dense_0/bias is float32[6] (of head.bias [6]), the model has int32[6]",
    ):
        assert part in str(error.value)


def test_leaves_without_a_place_and_two_for_one(file):
    with pytest.raises(ValueError, match=r"has no place for num_batches_tracked; the model has Conv_0/bias, .* give names"):
        fl.models.pretrained(LIKE, file, names={**NAMES, "num_batches_tracked": "num_batches_tracked"}, transpose=".*/kernel")
    with pytest.raises(ValueError, match="head.bias and head.weight both become Dense_0/bias|head.weight and head.bias both become"):
        fl.models.pretrained(LIKE, file, names={r"head\..*": "Dense_0/bias"})


def test_a_part_of_a_model(file):
    like = {"Dense_0": LIKE["Dense_0"], "Dense_1": {"kernel": jnp.ones((6, 2))}}
    found = fl.models.pretrained(like, file, names=NAMES, transpose=".*/kernel", strict=False)
    assert (found["Dense_1"]["kernel"] == 1).all() and (found["Dense_0"]["kernel"] == TORCH["head.weight"].T).all()
    with pytest.raises(ValueError, match=r"Dense_0/kernel is float32\[6, 5\] \(of head.weight \[6, 5\]\), the model has float32\[5, 6\]"):
        fl.models.pretrained(like, file, names=NAMES, strict=False)


def test_half_precision_is_widened_and_a_runs_own_file_needs_no_names(tmp_path):
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "params.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + np.array([0x3F80, 0xC000], "<u2").tobytes())
    found = fl.models.pretrained({"w": jnp.zeros(2)}, tmp_path)
    assert found["w"].dtype == jnp.float32 and found["w"].tolist() == [1, -2]


def test_refused(tmp_path, file):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors is not there: give the path of a safetensors file"):
        fl.models.pretrained(LIKE, tmp_path / "nowhere.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(DataError, match="text.safetensors is no safetensors file"):
        fl.models.pretrained(LIKE, tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match=r"pretrained: names: '\(' is no regular expression"):
        fl.models.pretrained(LIKE, file, names={"(": ""})
    with pytest.raises(ValueError, match="pretrained: transpose='kernels' fits no leaf; the model's leaves are Conv_0/bias"):
        fl.models.pretrained(LIKE, file, names=NAMES, transpose="kernels")


def test_a_runs_file_says_which_model_it_is_of(tmp_path):
    """All that does not fit in one error, with the model that does, where the run has left its architecture."""
    save_file({"Dense_0/kernel": np.zeros((5, 3), np.float32), "Dense_1/bias": np.zeros(2, np.float32)}, tmp_path / "params.safetensors")
    (tmp_path / "model.json").write_text('{"name": "mlp", "arguments": {"hidden": [3], "norm": "none"}}')
    like = {"Dense_0": {"kernel": jnp.zeros((5, 6)), "bias": jnp.zeros(6)}}
    with pytest.raises(ValueError) as error:
        fl.models.pretrained(like, tmp_path)
    for part in (
        "Dense_0/bias is not in the file; the model has no place for Dense_1/bias; the model has Dense_0/bias, Dense_0/kernel; ",
        "Dense_0/kernel is float32[5, 3] (of Dense_0/kernel [5, 3]), the model has float32[5, 6]: ",
        'the run that wrote it had the model mlp(hidden=[3], norm="none"): take that, or strict=False for a part of it',
    ):
        assert part in str(error.value)
    for damaged in ("{", "[]", '{"name": null, "arguments": null}'):
        (tmp_path / "model.json").write_text(damaged)
        with pytest.raises(ValueError, match="give names .* and transpose that make them fit, or strict=False for a part of the model"):
            fl.models.pretrained(like, tmp_path)
