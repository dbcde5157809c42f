"""State dicts of PyTorch: by NumPy's own layers of channels first, and where torch is installed by its modules, for every network."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pages import ROOT

import fedjax_lite as fl
from fedjax_lite import models
from fedjax_lite.export.pytorch import NETWORKS

RNG = np.random.default_rng(0)


def images(height, width, channels):
    return RNG.normal(size=(3, height, width, channels)).astype(np.float32)


def tokens(vocabulary, time=7):
    return RNG.integers(0, vocabulary, (3, time)).astype(np.int32)


def started(model, x, kind=np.float32):
    """Parameters of which none is a constant, so that no layer can stand in another's place."""
    shapes, rng = jax.eval_shape(model.init, jax.random.key(0), {"x": x[0]}), np.random.default_rng(1)

    def leaf(like):
        spread = np.prod(like.shape[:-1]) ** -0.5
        return rng.normal(scale=spread, size=like.shape) if len(like.shape) > 1 else rng.uniform(0.5, 1.5, like.shape)

    return jax.tree.map(lambda like: jnp.asarray(leaf(like), kind), shapes)


def outputs(model, params, x):
    return jax.jit(lambda params, x: model.apply(params, {"x": x}, None))(params, x)


# case -> model, batch, the name of its twin in torch_twins.py, the twin's arguments.
CASES = {
    "mlp": (models.mlp((5, 4), classes=3), images(2, 3, 2), "MLP", (12, (5, 4), 3)),
    "mlp batch": (models.mlp((5,), classes=3, norm="batch"), images(2, 3, 1), "MLP", (6, (5,), 3, "batch")),
    "mlp layer": (models.mlp((5,), classes=3, norm="layer"), images(2, 3, 1), "MLP", (6, (5,), 3, "layer")),
    "logistic": (models.logistic(3), images(2, 3, 1), "MLP", (6, (), 3)),
    "linear": (models.linear(2, bias=False), images(2, 3, 1), "MLP", (6, (), 2, "none", False)),
    "emnist_cnn": (models.emnist_cnn(5), images(28, 28, 1), "CNN", ((1, 28, 28), ((32, 64),), 3, 0, (128,), 5)),
    "mcmahan_cnn": (models.mcmahan_cnn(5), images(28, 28, 1), "CNN", ((1, 28, 28), ((32,), (64,)), 5, 2, (512,), 5)),
    "cifar_cnn": (models.cifar_cnn(5), images(32, 32, 3), "CNN", ((3, 32, 32), ((32, 32), (64, 64)), 3, 1, (512,), 5)),
    "feddyn_cnn": (models.feddyn_cnn(5), images(32, 32, 3), "CNN", ((3, 32, 32), ((64,), (64,)), 5, 0, (384, 192), 5)),
    "lenet5": (models.lenet5(5, padding=2), images(16, 20, 3), "CNN", ((3, 16, 20), ((6,), (16,)), 5, 0, (120, 84), 5, 2)),
    "vgg11": (
        models.vgg11(5, widths=(4,) * 7 + (6,), hidden=(7,), groups=2),
        images(64, 32, 3),
        "CNN",
        ((3, 64, 32), ((4,), (4,), (4, 4), (4, 4), (4, 6)), 3, 1, (7,), 5, 0, 2),
    ),
    "resnet18": (models.resnet18(5, widths=(4, 4, 8, 8)), images(9, 8, 3), "ResNet", (3, 5, (4, 4, 8, 8), 2, 2, True)),
    "resnet18 imagenet": (
        models.resnet18(5, widths=(4, 4, 8, 8), stem="imagenet"),
        images(32, 32, 3),
        "ResNet",
        (3, 5, (4, 4, 8, 8), 2, 2, True, "imagenet"),
    ),
    "resnet20": (models.resnet20(5, widths=(2, 4, 6)), images(8, 8, 3), "ResNet", (3, 5, (2, 4, 6), 3, 2, False)),
    "resnet20 projection": (
        models.resnet20(5, widths=(2, 4, 6), shortcut="projection"),
        images(8, 8, 3),
        "ResNet",
        (3, 5, (2, 4, 6), 3, 2, True),
    ),
    "char_lstm": (models.char_lstm(9, hidden=6), tokens(9), "NextToken", (9, 8, 6, 2)),
    "word_lstm": (models.word_lstm(9, embedding=4, hidden=6, layers=2), tokens(9), "NextToken", (9, 4, 6, 2, True)),
    "transformer": (models.transformer(9, width=8, heads=2), tokens(9), "Decoder", (9, 8, 2, 2)),
    "transformer learned": (
        models.transformer(9, width=8, heads=2, positions="learned", length=10),
        tokens(9),
        "Decoder",
        (9, 8, 2, 2, "learned", 10),
    ),
}
QUICK = ("mlp batch", "lenet5", "char_lstm", "transformer")


def test_every_network_has_its_case():
    made = {name for name in models.__all__ if inspect.signature(getattr(models, name)).return_annotation is models.Model}
    users = {name for name in made if name.startswith("from_")} | {"augmented", "normalised"}
    assert made - users == set(NETWORKS) == {case.split()[0] for case in CASES}


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.deep) for case in CASES])
def test_a_module_of_torch_gives_the_same_outputs_and_the_parameters_back(case, x64):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    import torch_twins

    model, x, twin, arguments = CASES[case]
    params = started(model, x, np.float64)
    module = getattr(torch_twins, twin)(*arguments).double().eval()
    module.load_state_dict({name: torch.from_numpy(leaf) for name, leaf in fl.export.state_dict(model, params).items()}, strict=True)
    x = x if x.ndim == 2 else x.astype(np.float64)
    y = x.astype(np.int64) if x.ndim == 2 else x if twin == "MLP" else x.transpose(0, 3, 1, 2).copy()
    with torch.no_grad():
        found = module(torch.from_numpy(y)).numpy()
    np.testing.assert_allclose(found, outputs(model, params, x), rtol=1e-8, atol=1e-8)
    again = fl.export.from_state_dict(model, module.state_dict(), jax.eval_shape(lambda: params))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), again, params)


@pytest.mark.deep
def test_the_module_in_the_docs_gives_the_same_outputs():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    text = (ROOT / "docs" / "exporting.md").read_text()
    names = {"nn": torch.nn, "F": torch.nn.functional}
    exec(next(block for block in re.findall(r"```py\n(.*?)```", text, re.DOTALL) if "class LeNet5" in block), names)
    model, x = models.lenet5(), images(28, 28, 1)
    params, module = started(model, x), names["LeNet5"]()
    module.load_state_dict({name: torch.from_numpy(leaf) for name, leaf in fl.export.state_dict(model, params).items()}, strict=True)
    found = module(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).detach().numpy()
    np.testing.assert_allclose(found, outputs(model, params, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.deep) for case in CASES])
def test_the_parameters_come_back_without_torch(case):
    model, x, _, _ = CASES[case]
    params = started(model, x)
    state = fl.export.state_dict(model, params)
    assert all(type(leaf) is np.ndarray and leaf.flags.c_contiguous and leaf.flags.writeable for leaf in state.values())
    again = fl.export.from_state_dict(model, state, params)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), again, params)


def test_a_network_of_channels_first_in_numpy_gives_the_same_outputs():
    """Torch's layers by their definitions: a convolution's kernel [out, in, height, width], pixels flattened channel by channel, x W^T."""
    model, x, _, _ = CASES["lenet5"]
    params = started(model, x)
    state = {name: leaf.astype(np.float64) for name, leaf in fl.export.state_dict(model, params).items()}
    h = np.pad(x.transpose(0, 3, 1, 2).astype(np.float64), ((0, 0), (0, 0), (2, 2), (2, 2)))
    for k in range(2):
        windows = np.lib.stride_tricks.sliding_window_view(h, (5, 5), axis=(2, 3))
        h = np.einsum("bchwij,ocij->bohw", windows, state[f"conv.{k}.weight"]) + state[f"conv.{k}.bias"][:, None, None]
        h = np.maximum(h, 0)
        batch, channels, height, width = h.shape
        h = h[:, :, : height // 2 * 2, : width // 2 * 2].reshape(batch, channels, height // 2, 2, width // 2, 2).max((3, 5))
    h = h.reshape(len(h), -1)
    for k in range(3):
        h = h @ state[f"dense.{k}.weight"].T + state[f"dense.{k}.bias"]
        h = np.maximum(h, 0) if k < 2 else h
    np.testing.assert_allclose(outputs(model, params, x), h, rtol=1e-4, atol=1e-4)


def test_an_lstm_in_numpy_gives_the_same_outputs():
    """Torch's equations: gates i, f, g, o one above the other, two biases."""
    model, x, _, _ = CASES["char_lstm"]
    params = started(model, x)
    state = {name: leaf.astype(np.float64) for name, leaf in fl.export.state_dict(model, params).items()}
    assert not state["lstm.0.bias_hh_l0"].any()
    h = state["embedding.weight"][x]
    for layer in range(2):
        w, u, b, c = (state[f"lstm.{layer}.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        now, cell, seen = np.zeros((3, 6)), np.zeros((3, 6)), []
        for t in range(h.shape[1]):
            i, f, g, o = np.split(h[:, t] @ w.T + b + now @ u.T + c, 4, axis=1)
            i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            cell = f * cell + i * np.tanh(g)
            now = o * np.tanh(cell)
            seen.append(now)
        h = np.stack(seen, axis=1)
    wanted = h @ state["dense.0.weight"].T + state["dense.0.bias"]
    np.testing.assert_allclose(outputs(model, params, x), wanted, rtol=1e-4, atol=1e-5)


def test_two_biases_become_one():
    model, x, _, _ = CASES["char_lstm"]
    params = started(model, x)
    state = fl.export.state_dict(model, params)
    state["lstm.1.bias_hh_l0"] += 2
    found = fl.export.from_state_dict(model, state, params)
    np.testing.assert_allclose(found["LSTM_1"]["bias"], params["LSTM_1"]["bias"] + 2, rtol=1e-6)


def test_what_is_around_a_network_and_half_precision():
    x = images(4, 4, 3)
    model = models.normalised(models.augmented(models.mlp((3,), norm="batch")), [0.1, 0.2, 0.3], 1.0)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), started(model, jnp.asarray(x)))
    state = fl.export.state_dict(model, params)
    assert state["dense.0.weight"].dtype == np.float32 and state["norm.0.num_batches_tracked"].dtype == np.int64
    again = fl.export.from_state_dict(model, state, params)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), again, params)


def test_every_mismatch_is_named():
    model, x, _, _ = CASES["mlp"]
    like = model.init(jax.random.key(0), {"x": x[0]})
    state = fl.export.state_dict(model, like)
    state["dense.9.weight"] = state.pop("dense.0.bias")
    state["dense.1.weight"] = state["dense.1.weight"].T
    with pytest.raises(ValueError) as error:
        fl.export.from_state_dict(model, state, like)
    for part in ("dense.0.bias is missing", "no place for dense.9.weight", "dense.1.weight is [5, 4], the model's is [4, 5]"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match=r"from_state_dict: Dense_0/bias should be float32\[5\], and is int64\[5\]"):
        fl.export.from_state_dict(model, fl.export.state_dict(model, like) | {"dense.0.bias": np.zeros(5, int)}, like)


def test_other_models_are_refused():
    own = models.from_functions(lambda key, example: jnp.zeros(3), lambda params, batch: batch["x"])
    for model in (own, models.normalised(own, 0.0, 1.0), models.mlp()._replace(init=own.init)):
        with pytest.raises(
            ValueError, match="state_dict: the model must be one of fl.models.cifar_cnn, .*: write a model of your own with"
        ):
            fl.export.state_dict(model, {"w": jnp.zeros(3)})
    with pytest.raises(ValueError, match="state_dict: the parameters are not those of lenet5"):
        fl.export.state_dict(models.lenet5(), {"w": jnp.zeros(3)})
