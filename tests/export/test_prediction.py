"""A prediction in one file: the bits of the compiled model, any number of examples, for platforms that are not here."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fedjax_lite as fl
from fedjax_lite import models

RNG = np.random.default_rng(0)
SMALL = models.mlp((5,), classes=3, norm="batch")
X = RNG.normal(size=(6, 4)).astype(np.float32)
EXAMPLE = {"x": X[0], "y": np.int32(0)}
PARAMS = SMALL.init(jax.random.key(0), EXAMPLE)


def images(*shape):
    return RNG.normal(size=(6, *shape)).astype(np.float32)


CASES = {
    "mlp": (SMALL, X),
    "normalised": (models.normalised(models.augmented(models.logistic(3)), 0.5, 2.0), images(4, 4, 1)),
    "from_functions": (models.from_functions(lambda key, x: jnp.ones((4, 3)), lambda params, x: x @ params, input="x"), X),
    "from_nnx": (models.from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs)), X),
    "lenet5": (models.lenet5(4), images(16, 16, 1)),
    "cifar_cnn": (models.cifar_cnn(4), images(32, 32, 3)),
    "emnist_cnn": (models.emnist_cnn(4), images(28, 28, 1)),
    "mcmahan_cnn": (models.mcmahan_cnn(4), images(28, 28, 1)),
    "feddyn_cnn": (models.feddyn_cnn(4), images(32, 32, 3)),
    "vgg11": (models.vgg11(4, widths=(2,) * 8, groups=2), images(32, 32, 3)),
    "resnet20": (models.resnet20(4, widths=(4, 4, 8)), images(8, 8, 3)),
    "char_lstm": (models.char_lstm(7, hidden=4), RNG.integers(0, 7, (6, 5)).astype(np.int32)),
    "word_lstm": (models.word_lstm(7, hidden=4, embedding=3), RNG.integers(0, 7, (6, 5)).astype(np.int32)),
    "transformer": (models.transformer(7, width=8, heads=2, padding=0), RNG.integers(0, 7, (6, 5)).astype(np.int32)),
}
QUICK = ("mlp",)


@pytest.fixture
def written(tmp_path):
    def write(model, params, example, **options):
        return fl.export.load_prediction(fl.export.prediction(model, params, example, tmp_path / "made" / "model.jax", **options))

    return write


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.deep) for case in CASES])
def test_the_file_gives_the_bits_of_the_compiled_model(case, written):
    model, x = CASES[case]
    params = model.init(jax.random.key(0), {"x": x[0]})
    predict = written(model, params, {"x": x[0]})
    assert predict.platforms == ("cpu", "cuda", "tpu") and predict.inputs["x"].shape[1:] == x.shape[1:]
    assert str(predict.inputs["x"].shape[0]) == str(predict.outputs.shape[0]) == "batch"
    np.testing.assert_array_equal(predict(x), jax.jit(lambda batch: model.apply(params, batch, None))({"x": x}), strict=True)
    np.testing.assert_allclose(predict(x[:1]), predict(x)[:1], rtol=1e-4, atol=1e-5)  # another number of examples


@pytest.mark.deep
def test_a_strided_convolution_whose_products_are_taken_an_example_at_a_time(written):
    """Elsewhere as many at a time as fit a cache: the same to rounding."""
    model, x = models.resnet18(4, widths=(2, 2, 4, 4), stem="imagenet"), images(16, 16, 3)
    params = model.init(jax.random.key(0), {"x": x[0]})
    predict = written(model, params, {"x": x[0]}, platforms=["cpu"])
    np.testing.assert_allclose(predict(x), jax.jit(lambda x: model.apply(params, {"x": x}, None))(x), rtol=1e-4, atol=1e-5)


def test_labels_are_no_inputs_and_shapes_do_for_an_example(written):
    predict = written(SMALL, PARAMS, jax.eval_shape(lambda: EXAMPLE))
    assert predict.inputs.keys() == {"x"}
    for batch in (X, X.tolist(), {"x": X}, {"x": X, "y": 0}, X.astype(np.float64)):
        np.testing.assert_array_equal(predict(batch), predict(jnp.asarray(X)))
    with pytest.raises(ValueError, match="Expected value >= 1 for dimension variable 'batch'"):
        predict(X[:0])


def test_examples_without_names(written):
    model = models.Model(lambda key, example: (), lambda params, batch, key: batch[0] + batch[1])
    predict = written(model, (), (1.0, 2.0))
    assert predict((jnp.ones(3), jnp.ones(3))).tolist() == [2, 2, 2]


def test_inputs_of_other_shapes_are_refused(written):
    predict = written(SMALL, PARAMS, EXAMPLE)
    for wrong in (X[0], X[:, :3], np.zeros((2, 4, 1), np.float32)):
        with pytest.raises(ValueError, match=r"load_prediction: x must be \[batch, 4\], got the shape"):
            predict(wrong)
    with pytest.raises(ValueError, match="load_prediction: x must be float32, got complex64"):
        predict(X.astype(np.complex64))
    with pytest.raises(ValueError, match="the model reads the leaf 'x', and the batch has y"):
        predict({"y": X})


def test_a_model_that_needs_to_know_the_number_of_examples(written):
    model = models.Model(lambda key, example: (), lambda params, batch, key: batch["x"] * len(batch["x"]))
    with pytest.raises(ValueError, match=r"the model has no program for cpu \(.*write x.shape.0. for len.x., or fix the number: batch=20"):
        written(model, (), {"x": np.float32(1)}, platforms=("cpu",))
    predict = written(model, (), {"x": np.float32(1)}, platforms=("cpu",), batch=3)
    assert predict(np.ones(3, np.float32)).tolist() == [3, 3, 3] and predict.platforms == ("cpu",)
    with pytest.raises(ValueError, match="shape"):
        predict(np.ones(2, np.float32))


def test_what_a_platform_lacks_is_said(written):
    def apply(params, batch, key=None):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((2,), np.float32), batch["x"])

    with pytest.raises(ValueError, match=r"prediction: the model has no program for cpu, cuda, tpu \(.*callback"):
        written(models.Model(lambda key, example: (), apply), (), {"x": np.float32(1)}, batch=2)


@pytest.mark.parametrize("platforms", ["gpu", (), ("cpu", "abacus")])
def test_other_platforms_are_refused(written, platforms):
    with pytest.raises(ValueError, match="prediction: platforms must be some of 'cpu', 'cuda', 'rocm', 'tpu', got"):
        written(SMALL, PARAMS, EXAMPLE, platforms=platforms)


def test_one_platform_by_its_name(written):
    assert written(SMALL, PARAMS, EXAMPLE, platforms="tpu").platforms == ("tpu",)


@pytest.mark.parametrize("text", [b"", b"no", b"\x00" * 64, bytes(range(256))])
def test_files_without_a_prediction(tmp_path, text):
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(ValueError, match="file holds no prediction .*: write it with fl.export.prediction"):
        fl.export.load_prediction(tmp_path / "file")
    with pytest.raises(ValueError, match="none cannot be read: No such file"):
        fl.export.load_prediction(tmp_path / "none")


def test_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["fedjax_lite.export.prediction"], "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="prediction needs flatbuffers: pip install flatbuffers, or pip install 'fedjax_lite.export.'"):
        fl.export.prediction(SMALL, PARAMS, EXAMPLE, tmp_path / "file")
