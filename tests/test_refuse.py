"""Numbers that are refused when a part is built."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lite.refuse import integer


@pytest.mark.parametrize("value", [2.0, np.float32(2), True, "2", None, jnp.int32(2)], ids=repr)
def test_a_count_that_sets_a_shape_is_an_int(value):
    integer("f", "n", 2, least=2)
    integer("f", "n", np.int64(2), least=2)
    with pytest.raises(ValueError, match=f"f: n must be an int of at least 1, got {re.escape(repr(value))}"):
        integer("f", "n", value, least=1)
