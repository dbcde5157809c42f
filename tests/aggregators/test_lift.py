"""Aggregators made of others."""

import jax
import jax.numpy as jnp

from fedjax_lite import aggregators


def test_a_rule_and_all_that_stands_before_it_have_keys_of_their_own():
    def before(inner):
        return aggregators.transformed(lambda messages, cohort, state, key: (messages, cohort, jax.random.key_data(key)), inner)

    rule = aggregators.from_stack(lambda messages, cohort: messages)
    nested = before(before(rule._replace(finish=lambda part, state, key: (jax.random.key_data(key), state, {}))))
    innermost, (first, (second, _)), _ = nested.finish((jnp.ones(2), None), ((), ((), ())), jax.random.key(0))
    assert len({tuple(words.tolist()) for words in (first, second, innermost)}) == 3
