"""The word network: its layers by their equations, and the loss that leaves out padding."""

import jax
import numpy as np
import pytest
from recurrence import by_the_equations

from fedjax_lite import models

MODEL = models.word_lstm(11, embedding=3, hidden=4, layers=2)


@pytest.mark.deep
def test_word_lstm_is_layers_each_with_its_projection():
    x = np.random.default_rng(0).integers(0, 11, (2, 6)).astype(np.int32)
    params = jax.device_get(jax.jit(MODEL.init)(jax.random.key(0), {"x": x[0]}))
    assert params["Dense_0"]["kernel"].shape == params["Dense_1"]["kernel"].shape == (4, 3)
    assert params["embedding"].shape == (11, 3) and np.abs(params["embedding"]).max() < 0.15
    h = params["embedding"][x]
    for k in range(2):
        h = by_the_equations(*(params[f"LSTM_{k}"][name] for name in ("kernel", "recurrent", "bias")), h)
        h = h @ params[f"Dense_{k}"]["kernel"] + params[f"Dense_{k}"]["bias"]
    expected = h @ params["Dense_2"]["kernel"] + params["Dense_2"]["bias"]
    found, features = jax.jit(lambda params, x: (MODEL.apply(params, {"x": x}, None), MODEL.features(params, {"x": x}, None)))(params, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features, h, rtol=1e-4, atol=1e-6)
