"""Every network: as many parameters as its source says, features below a head, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite import models

GRAY, COLOUR, TEXT = ((28, 28, 1), np.float32), ((32, 32, 3), np.float32), ((20,), np.int32)
STAR = dict(widths=(32, 64, 128, 128, 128, 128, 128, 128), hidden=(128, 128))
GPT2 = dict(width=768, layers=12, heads=12, positions="learned")
COUNTS = [  # network, its example, its parameters, who says so
    (models.logistic(), ((784,), np.float32), 7_850),
    (models.logistic(500), ((10_000,), np.float32), 5_000_500),  # Reddi et al. (2021), table 4
    (models.mlp(), ((784,), np.float32), 199_210),  # McMahan et al. (2017)
    (models.mcmahan_cnn(), GRAY, 1_663_370),  # McMahan et al. (2017)
    (models.emnist_cnn(), GRAY, 1_206_590),  # Reddi et al.
    (models.cifar_cnn(), COLOUR, 2_168_362),
    (models.feddyn_cnn(), COLOUR, 797_962),  # 4,864 + 102,464 + 614,784 + 73,920 + 1,930
    (models.lenet5(), GRAY, 44_426),
    (models.lenet5(padding=2), GRAY, 61_706),
    (models.lenet5(), ((32, 32), np.float32), 61_706),
    (models.lenet5(), COLOUR, 62_006),
    (models.vgg11(), COLOUR, 9_225_610),
    (models.vgg11(groups=2), COLOUR, 9_231_114),  # as with batch normalisation
    (models.vgg11(**STAR), COLOUR, 865_482),  # Sattler et al. (2020), table I
    (models.resnet18(), COLOUR, 11_173_962),
    (models.resnet18(1000, stem="imagenet"), ((64, 64, 3), np.float32), 11_689_512),  # torchvision
    (models.resnet18(100, stem="imagenet"), ((24, 24, 3), np.float32), 11_227_812),  # Reddi et al.
    (models.resnet20(), COLOUR, 269_722),
    (models.resnet20(shortcut="projection"), COLOUR, 272_474),
    (models.char_lstm(), TEXT, 820_522),  # Reddi et al.
    (models.char_lstm(80), TEXT, 817_872),
    (models.word_lstm(), TEXT, 4_050_748),  # Reddi et al.
    (models.transformer(), TEXT, 90 * 128 + 2 * (12 * 128**2 + 13 * 128) + 2 * 128),
    (models.transformer(50_257, **GPT2), TEXT, 124_439_808),  # GPT-2, the small one
]


def shapes(model, example):
    return jax.eval_shape(lambda key: model.init(key, {"x": jnp.zeros(*example)}), jax.random.key(0))


LARGE = 8, 11, 12, 15, 16, 18  # of networks whose like is counted beside them, and which take longer to build


@pytest.mark.parametrize(
    "model, example, count", [pytest.param(*case, marks=pytest.mark.deep if k in LARGE else ()) for k, case in enumerate(COUNTS)]
)
def test_parameters_are_as_many_as_published(model, example, count):
    assert sum(x.size for x in jax.tree.leaves(shapes(model, example))) == count


@pytest.mark.parametrize("model, example", [(model, example) for model, example, _ in (COUNTS[k] for k in (1, 7, 17, 21, 22))])
def test_outputs_are_the_head_of_the_features(model, example):
    """Shapes alone: the numbers of one small network of each kind are asked below."""
    batch = {"x": jax.ShapeDtypeStruct((3, *example[0]), example[1])}
    params = shapes(model, example)
    features = jax.eval_shape(lambda params, batch: model.features(params, batch, None), params, batch)
    outputs = jax.eval_shape(lambda params, batch: model.apply(params, batch, None), params, batch)
    assert jax.eval_shape(model.head, params, features) == outputs and features.shape[:-1] == outputs.shape[:-1]


SMALL = {
    "logistic": (models.logistic(3), ((5,), np.float32)),
    "lenet5": (models.lenet5(3), ((16, 16, 1), np.float32)),
    "resnet18": (models.resnet18(3, widths=(2, 2, 4, 4)), ((8, 8, 1), np.float32)),
    "vgg11": (models.vgg11(3, widths=(2,) * 8, groups=1), ((32, 32, 1), np.float32)),
    "word_lstm": (models.word_lstm(5, embedding=2, hidden=3), ((4,), np.int32)),
    "transformer": (models.transformer(5, width=4, layers=1, heads=2), ((4,), np.int32)),
}


@pytest.mark.parametrize(
    "model, example",
    [pytest.param(*case, id=name, marks=[pytest.mark.deep] * (name not in ("logistic", "lenet5"))) for name, case in SMALL.items()],
)
def test_gradients_are_finite_and_reach_every_parameter_and_the_head_follows_the_features(model, example):
    """Two clients side by side, each with weights of its own; of what draws at random, a few numbers."""
    rng = np.random.default_rng(0)
    text = example[1] == np.int32
    shape = (2, 3, *example[0])
    x = rng.integers(0, 5, shape).astype(np.int32) if text else rng.normal(size=shape).astype(np.float32)
    y = rng.integers(0, 3, shape if text else (2, 3))
    loss_fn = models.supervised(model)

    @jax.jit
    def run(keys, x, y):
        def client(key, x, y):
            params = model.init(key, {"x": x[0]})
            params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), params)
            gradient = jax.grad(lambda params: jnp.mean(loss_fn(params, {"x": x, "y": y}, key)[0]))(params)
            return gradient, model.apply(params, {"x": x}, None), model.head(params, model.features(params, {"x": x}, None))

        return jax.vmap(client)(keys, x, y)

    gradient, outputs, of_head = run(jax.random.split(jax.random.key(0), 2), x, y)
    np.testing.assert_allclose(outputs, of_head, rtol=1e-5, atol=1e-6)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and all(np.any(of_client) for of_client in np.asarray(leaf)), path


def test_logistic_starts_at_equal_chances():
    params = models.logistic(4).init(jax.random.key(0), {"x": jnp.ones((2, 3))})
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(params)) and params["Dense_0"]["kernel"].shape == (6, 4)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: models.logistic(0), "logistic: classes must be a whole number of at least 1, got 0"),
        (lambda: models.lenet5(padding=-1), "lenet5: padding .* got -1"),
        (lambda: models.vgg11(widths=(4, 4)), "vgg11: widths must be those of eight convolutions, got 2"),
        (lambda: models.vgg11(groups=3), "vgg11: groups must divide the 64 channels of a layer, got 3"),
        (lambda: models.resnet18(stem="mnist"), 'resnet18: stem must be "cifar" or "imagenet", got \'mnist\''),
        (lambda: models.resnet18(widths=(4, 4, 4)), "resnet18: widths must be those of 4 stages, got 3"),
        (lambda: models.resnet18(groups=0), "resnet18: groups must be a whole number of at least 1, got 0"),
        (lambda: models.resnet20(groups=32), "resnet20: groups must divide the 16 channels"),
        (lambda: models.resnet20(shortcut="A"), 'resnet20: shortcut must be "padding" or "projection", got \'A\''),
        (lambda: models.resnet20(widths=(8, 4, 8)), "resnet20: widths that fall cannot be padded"),
        (lambda: models.word_lstm(hidden=0), "word_lstm: hidden must be a whole number of at least 1, got 0"),
        (lambda: models.transformer(heads=3), "transformer: heads=3 must divide width=128, each of an even width"),
        (lambda: models.transformer(width=6, heads=2), "heads=2 must divide width=6, each of an even width for rotary"),
        (lambda: models.transformer(positions="sine"), 'transformer: positions must be "rotary" or "learned", got \'sine\''),
        (lambda: models.transformer(dropout=1.0), r"transformer: dropout must be a rate in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    "model, example, said",
    [
        (models.mcmahan_cnn(), ((32, 32, 3), np.float32), "for images of 28 x 28 x 1, got examples of the shape .32, 32, 3"),
        (models.lenet5(), ((784,), np.float32), r"for images \[height, width, channels\] or .* shape \[784\]: reshape them"),
        (models.lenet5(), ((8, 8, 1), np.float32), "images of 8 x 8 are too small for the model"),
        (models.vgg11(), ((28, 28, 1), np.float32), "images of 28 x 28 are too small for the model"),
        (models.word_lstm(), ((5,), np.float32), "word_lstm: x of an example must be integer tokens"),
        (models.transformer(positions="learned", length=4), ((5,), np.int32), "sequences of 5 tokens are longer than length=4"),
    ],
)
def test_examples_of_another_kind_are_refused(model, example, said):
    with pytest.raises(ValueError, match=said):
        shapes(model, example)
