"""The cost of one aggregation: positive, and what the rule raises is raised. Nothing here times."""

import jax.numpy as jnp
import pytest

import fedjax_lite as fl
from fedjax_lite.checks.cost import cost


def test_a_cost_has_a_time_and_at_least_the_result_in_memory():
    found = cost(fl.aggregators.centered_clipping(radius=1.0), {"a": jnp.zeros((3, 2)), "b": jnp.zeros(())}, clients=5, seconds=0.0)
    assert found.seconds > 0 and (found.bytes is None or found.bytes >= 4 * 7)


def test_what_a_rule_raises_is_raised():
    with pytest.raises(ValueError, match="krum: num_byzantine=4 needs"):
        cost(fl.aggregators.krum(num_byzantine=4), jnp.zeros(3), clients=5)
