"""Feature skew: noise and angles by client, the same for a client's training and test examples."""

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import FederatedData, TrainTest


def bilinear(image, angle):
    """Turn a square image: each pixel from the four that surround the place that it comes from, 0 outside."""
    side, turn = len(image), np.deg2rad(angle)
    padded, middle, made = np.pad(image, side), (side - 1) / 2, np.zeros_like(image)
    for i in range(side):
        for j in range(side):
            up, right = middle - i, j - middle  # counterclockwise by `turn`, so what comes here was at -turn
            row = middle - (up * np.cos(turn) - right * np.sin(turn)) + side
            column = middle + (right * np.cos(turn) + up * np.sin(turn)) + side
            r, c = int(np.floor(row)), int(np.floor(column))
            weights = np.outer([1 - (row - r), row - r], [1 - (column - c), column - c])
            made[i, j] = (weights * padded[r : r + 2, c : c + 2]).sum()
    return made


DIGITS = fl.data.digits(fl.partition.iid(4), test=0.25)


def test_noise_grows_with_the_client_by_its_law():
    """std of client k = 1 ... N is sigma k / N, in both parts; draws of parts and clients are independent; labels stay."""
    flat = FederatedData.from_clients([{"x": np.zeros((n, 50), np.float32), "y": np.arange(n)} for n in (100, 60, 80, 90)])
    train, test = fl.data.feature_noise(TrainTest(flat, flat), 2.0, seed=1)
    for part in (train, test):
        for k in range(4):
            noise = np.asarray(part.client(k)["x"])
            expected = 2.0 * (k + 1) / 4
            assert abs(noise.std() / expected - 1) < 4 / np.sqrt(2 * noise.size) and abs(noise.mean()) < 4 * expected / np.sqrt(noise.size)
        assert part.examples["y"].tolist() == flat.examples["y"].tolist() and part.examples["x"].dtype == np.float32
    a, b = np.asarray(train.examples["x"]).ravel(), np.asarray(test.examples["x"]).ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(a.size)


def test_noise_follows_its_seed_and_none_is_none():
    same, again, other = (fl.data.feature_noise(DIGITS, 0.1, seed=seed).train.fingerprint() for seed in (0, 0, 1))
    assert same == again != other
    assert fl.data.feature_noise(DIGITS, 0).train.fingerprint() == DIGITS.train.fingerprint()


def test_images_turn_by_their_clients_angles():
    """Against a loop over examples; flat images are squares; client 3 turns as client 0 again."""
    turned = fl.data.rotated(DIGITS, [0, 90, 33.0])
    for before, after in zip(DIGITS, turned, strict=True):
        for k in range(4):
            x, made = (np.asarray(part.client(k)["x"]).reshape(-1, 8, 8) for part in (before, after))
            for image, result in zip(x[:3], made[:3], strict=True):
                if k % 3 == 2:
                    np.testing.assert_allclose(result, bilinear(image, 33.0), atol=1e-5)
            if k % 3 != 2:
                np.testing.assert_array_equal(made, np.rot90(x, k % 3, axes=(1, 2)))
            np.testing.assert_array_equal(before.client(k)["y"], after.client(k)["y"])
    assert turned.train.example["x"].shape == (64,) and turned.names == DIGITS.names


def test_angles_turn_alike_however_they_are_computed():
    """A quarter turn of pixels, of interpolation, of colours; four of them are none."""
    images = np.random.default_rng(0).random((3, 6, 6, 2)).astype(np.float32)
    data = FederatedData.from_clients([{"x": images}])
    quarter = np.asarray(fl.data.rotated(data, [90]).train.examples["x"])
    np.testing.assert_allclose(quarter, fl.data.rotated(data, [90.0 - 1e-9]).train.examples["x"], atol=1e-5)
    np.testing.assert_array_equal(quarter[..., 1], np.rot90(images[..., 1], axes=(1, 2)))
    np.testing.assert_array_equal(fl.data.rotated(data, [-90]).train.examples["x"], fl.data.rotated(data, [270]).train.examples["x"])
    np.testing.assert_array_equal(fl.data.rotated(data, [360]).train.examples["x"], images)
    oblong = FederatedData.from_clients([{"x": np.arange(8.0).reshape(1, 2, 4)}])
    assert fl.data.rotated(oblong, [180]).train.examples["x"].tolist() == [[[7, 6, 5, 4], [3, 2, 1, 0]]]
    assert fl.data.rotated(oblong, [90]).train.examples["x"].shape == (1, 2, 4)


def test_a_central_test_set_stays_as_it_is():
    central = FederatedData.from_clients([{"x": np.ones((5, 64), np.float32), "y": np.zeros(5, int)}])
    data = DIGITS._replace(test=central)
    assert fl.data.feature_noise(data, 1.0).test is central and fl.data.rotated(data, [90]).test is central


def test_what_has_no_such_inputs_is_refused(tmp_path):
    whole = FederatedData.from_clients([{"x": np.ones((5, 3), int)}])
    with pytest.raises(ValueError, match="feature_noise: the leaf x of inner holds int32, and noise is for floats: convert it"):
        fl.data.feature_noise(whole, 1.0)
    with pytest.raises(ValueError, match="feature_noise: sigma must be finite and not negative, got -1.0"):
        fl.data.feature_noise(DIGITS, -1.0)
    with pytest.raises(ValueError, match=r"rotated: the leaf x of inner has the shape \[3\] an example, which is no image: give its axes"):
        fl.data.rotated(whole, [90])
    with pytest.raises(ValueError, match="rotated: angles must be finite, got nan"):
        fl.data.rotated(DIGITS, [float("nan")])
    with pytest.raises(ValueError, match="rotated: angles is empty: give one angle a cluster of clients"):
        fl.data.rotated(DIGITS, [])
    with pytest.raises(ValueError, match='rotated: inner must be data in memory whose examples have a leaf "x", got a FederatedData'):
        fl.data.rotated(FederatedData.from_clients([{"tokens": np.ones((2, 3))}]), [90])
    fl.data.save(tmp_path / "store", [{"x": np.ones((2, 4), np.float32)}])
    with pytest.raises(ValueError, match='feature_noise: inner must be data in memory whose examples have a leaf "x", got a Store'):
        fl.data.feature_noise(fl.data.store(tmp_path / "store"), 1.0)
