"""Normalised and augmented inputs, against NumPy on the draws that were made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, edited

import fedjax_lite as fl
from fedjax_lite.configuration.model import model_of
from fedjax_lite.models import Model, augmented, normalised

seen = Model(lambda key, example: example["x"], lambda params, batch, key: batch["x"], features=lambda params, batch, key: batch["x"])


def images(batch=200, height=5, width=6, channels=2):
    return np.random.default_rng(0).integers(1, 256, (batch, height, width, channels)).astype(np.float32)


def test_channels_are_standardised_also_of_bytes_and_of_the_example():
    x = images().astype(np.uint8)
    model = normalised(seen, [100.0, 50.0], [2.0, 4.0])
    wanted = (x.astype(np.float64) - [100, 50]) / [2, 4]
    np.testing.assert_allclose(model.apply((), {"x": jnp.asarray(x)}, None), wanted, rtol=1e-6)
    np.testing.assert_allclose(model.features((), {"x": jnp.asarray(x)}, None), wanted, rtol=1e-6)
    np.testing.assert_allclose(model.init(jax.random.key(0), {"x": x[0]}), wanted[0], rtol=1e-6)
    np.testing.assert_allclose(normalised(seen, 1, 2).apply((), {"x": jnp.ones((1, 3))}, None), np.zeros((1, 3)))


def place(image, of, pixels):
    """Where in the padded original an augmented image was cut out, and whether it is a mirror image; None: nowhere."""
    for mirrored in (False, True):
        padded = np.pad(of[:, ::-1] if mirrored else of, ((pixels, pixels), (pixels, pixels), (0, 0)))
        for row in range(2 * pixels + 1):
            for column in range(2 * pixels + 1):
                if (padded[row : row + of.shape[0], column : column + of.shape[1]] == image).all():
                    return row, column, mirrored
    return None


def test_each_image_is_mirrored_and_shifted_by_draws_of_its_own_with_the_probabilities_that_were_asked_for():
    x = images()
    out = np.asarray(augmented(seen, flip=0.25, crop=2, crop_probability=0.5).apply((), {"x": jnp.asarray(x)}, jax.random.key(3)))
    found = [place(image, of, 2) for image, of in zip(out, x, strict=True)]
    assert None not in found
    rows, columns, mirrored = np.array(found).T
    middle = np.mean((rows == 2) & (columns == 2))  # 1/2 that stay, and a 25th of the others: 0.52 +- 0.035
    assert mirrored.mean() == pytest.approx(0.25, abs=0.1) and middle == pytest.approx(0.52, abs=0.11)
    for drawn in (rows[(rows != 2) | (columns != 2)], columns[(rows != 2) | (columns != 2)]):
        assert set(drawn) == {0, 1, 2, 3, 4}


def test_evaluation_sees_images_as_they_are_and_a_key_decides_all():
    x = {"x": jnp.asarray(images(8)), "y": jnp.arange(8)}
    model = augmented(seen)
    np.testing.assert_array_equal(model.apply((), x, None), x["x"])
    np.testing.assert_array_equal(model.apply((), x, jax.random.key(1)), model.apply((), x, jax.random.key(1)))
    assert not np.array_equal(model.apply((), x, jax.random.key(1)), model.apply((), x, jax.random.key(2)))
    np.testing.assert_array_equal(augmented(seen, flip=0.0, crop=0).apply((), x, jax.random.key(1)), x["x"])


def test_zeros_of_the_padding_are_the_mean_where_normalisation_is_outside():
    x = jnp.full((64, 4, 4, 1), 3.0)
    out = normalised(augmented(seen, crop=1), 2.0, 1.0).apply((), {"x": x}, jax.random.key(0))
    assert set(np.unique(out)) == {0.0, 1.0}


@pytest.mark.deep
def test_running_statistics_masks_and_the_key_of_dropout_reach_the_model_inside():
    model = augmented(fl.models.mlp((4,), classes=3, norm="batch"))
    batch = {"x": jnp.asarray(images(4)), "y": jnp.zeros(4, jnp.int32)}
    params = model.init(jax.random.key(0), jax.tree.map(lambda x: x[0], batch))
    losses, _, after = fl.models.supervised(model)(params, batch, jax.random.key(1), mask=jnp.ones(4, bool))
    assert losses.shape == (4,) and jax.tree.structure(after) == jax.tree.structure(params.statistics)

    def apply(params, batch, key, mask):
        return jax.random.normal(key, (2,)) + jnp.where(mask, 0, 1)

    inside = normalised(Model(seen.init, apply), 0, 1)
    assert inside.apply((), batch, jax.random.key(0), mask=jnp.array([True, False])).shape == (2,)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: normalised(seen, 0, 0), "stds must be positive, got 0"),
        (lambda: normalised(seen, [], 1), r"means must be a number, or one a channel, got \[\]"),
        (lambda: normalised(seen, float("nan"), 1), "means must be a number.* got nan"),
        (
            lambda: normalised(seen, [1, 2, 3], 1).apply((), {"x": jnp.ones((1, 4))}, None),
            r"means has 3 numbers for examples of the shape \[4\]",
        ),
        (lambda: augmented(seen, flip=2), r"flip must be a probability in \[0, 1\], got 2"),
        (lambda: augmented(seen, crop=-1), "crop must be"),
        (lambda: augmented(seen).apply((), {"x": jnp.ones((2, 4))}, jax.random.key(0)), r"must be images .* got the shape \[4\]"),
        (lambda: augmented(seen).apply((), {"z": jnp.ones((2, 4))}, None), "input='x' is no leaf"),
    ],
)
def test_what_is_no_normalisation_or_augmentation_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_configuration_wraps_a_model_in_others(tmp_path):
    inner = '{ name = "normalised", means = 0.5, stds = 0.5, inner = { name = "mlp", hidden = [3] } }'
    wrapped = ('name = "mlp"\nhidden = [3]', f'name = "normalised"\nmeans = 1.0\nstds = 2.0\ninner = {inner}')
    model, loss_fn = model_of(edited(tmp_path, TINY, wrapped).at("model"), (3, "softmax"))
    batch = {"x": jnp.array([[1.0, 0.0]]), "y": jnp.array([2])}
    params = model.init(jax.random.key(0), {"x": batch["x"][0]})
    plain = fl.models.supervised(fl.models.mlp((3,), classes=3))
    expected = plain(params, batch | {"x": ((batch["x"] - 1) / 2 - 0.5) / 0.5}, None)[0]
    np.testing.assert_allclose(loss_fn(params, batch, None)[0], expected, rtol=1e-6)
