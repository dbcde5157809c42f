"""Numbers that are refused when a part is built."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite.refuse import a_count, a_share, integer


@pytest.mark.parametrize("value", [2.0, np.float32(2), True, "2", None, jnp.float32(2)], ids=repr)
def test_a_count_that_sets_a_shape_is_an_int(value):
    integer("f", "n", 2, least=2)
    integer("f", "n", np.int64(2), least=2)
    integer("f", "n", jnp.int32(2), least=2)
    with pytest.raises(ValueError, match=f"f: n must be an int of at least 1, got {re.escape(repr(value))}"):
        integer("f", "n", value, least=1)


@pytest.mark.parametrize("value", [2.0, np.float32(2), True, "2", None, 0, np.int64(0), jnp.float32(2), jnp.ones(1, int), [2]], ids=repr)
def test_a_count_may_be_of_any_kind_but_whole(value):
    assert [type(a_count("f", "n", x)) for x in (2, np.int64(2), np.uint8(2), jnp.int32(2))] == [int] * 4
    with pytest.raises(ValueError, match=f"f: n must be a whole number of at least 1, got {re.escape(repr(value))}"):
        a_count("f", "n", value)


@pytest.mark.parametrize("value", ["x", None, True, float("nan"), 0, 1.5, np.float32(-1), jnp.float32(2), np.ones(2), 1j], ids=repr)
def test_a_share_may_be_of_any_kind_within_its_bounds(value):
    assert [a_share("f", "q", x, "(0, 1]") for x in (0.5, np.float32(0.5), jnp.float32(0.5), 1)] == [0.5, 0.5, 0.5, 1]
    with pytest.raises(ValueError, match=rf"f: q must be in \(0, 1\], got {re.escape(repr(value))}"):
        a_share("f", "q", value, "(0, 1]")
