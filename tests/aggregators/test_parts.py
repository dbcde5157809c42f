"""A rule for each part of a message: both drop the same clients, and what does not fit is refused."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite import aggregators
from fedjax_lite.aggregators.parts import mapped

RNG = np.random.default_rng(0)
STACK = {"params": {"w": RNG.normal(size=(6, 3))}, "control": RNG.normal(size=(6, 2))}
STACK["control"][4, 1] = np.nan
WEIGHT = np.array([1.0, 1, 0, 1, 1, 1])  # slot 2 is empty, and slot 4 sends what is no number in one part
STACK["params"]["w"][2] = np.inf
LEFT = [0, 1, 3, 5]


def cohort():
    return fl.sampling.cohort(jax.random.key(0), jnp.arange(1, 7), jnp.arange(6), jnp.asarray(WEIGHT))


def aggregate(rule, stack=STACK):
    def whole(stack, cohort):
        state = rule.init(jax.tree.map(lambda x: x[0], stack))
        return rule.finish(rule.collect(stack, cohort, state), state, jax.random.key(1))

    return jax.jit(whole)(jax.tree.map(jnp.asarray, stack), cohort())


@pytest.mark.parametrize("control", ["mean", "median"])
def test_each_part_has_its_rule_and_both_drop_the_same_clients(control, x64):
    """Whether all parts add, so that groups of clients can, or one must see all messages together."""
    rule = aggregators.by_part(params=aggregators.mean(), control=getattr(aggregators, control)())
    found, _, metrics = aggregate(rule)
    np.testing.assert_allclose(found["params"]["w"], STACK["params"]["w"][LEFT].mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found["control"], getattr(np, control)(STACK["control"][LEFT], axis=0), rtol=1e-14)
    assert rule.additive == (control == "mean") and metrics["non_finite"] == 1
    assert not rule.weighs and aggregators.by_part(params=aggregators.weighted_mean(), control=aggregators.mean()).weighs


def test_a_metric_of_two_rules_has_its_part_in_front():
    rule = aggregators.by_part(params=aggregators.median(), control=aggregators.trimmed_mean(num_byzantine=1))
    assert set(aggregate(rule)[2]) == {"non_finite", "params_too_few", "control_too_few"}


def test_bits_are_those_of_each_part():
    secure = aggregators.by_part(params=aggregators.secure_mean(), control=aggregators.secure_mean())
    assert secure.sums_only and secure.bits(jax.tree.map(lambda x: x[0], STACK)) == 5 * 32
    assert aggregators.by_part(params=aggregators.mean()).bits is None


def test_each_message_is_changed_before_a_rule_has_it(x64):
    rule = mapped(lambda message: message["params"]["w"] / message["control"][0], aggregators.mean())
    found = aggregate(rule)[0]
    finite = [0, 1, 3, 4, 5]  # what is no number is not used
    np.testing.assert_allclose(found, (STACK["params"]["w"] / STACK["control"][:, :1])[finite].mean(axis=0), rtol=1e-14)


def test_what_does_not_fit():
    by_part, mean = inspect.unwrap(aggregators.by_part), aggregators.mean()
    private = aggregators.dp_mean(clip=1.0, noise_multiplier=1.0, clients_per_round=2)
    with pytest.raises(ValueError, match="by_part: give a rule for each part of the message"):
        by_part()
    with pytest.raises(TypeError, match="by_part: params must be a fl.Aggregator, got <function mean"):
        by_part(params=aggregators.mean)
    with pytest.raises(ValueError, match="by_part: the rule of params is private, and its guarantee is for a whole message"):
        by_part(params=private, control=mean)
    with pytest.raises(ValueError, match="by_part: some rules hide single messages"):
        by_part(params=aggregators.secure_mean(), control=mean)
    for stack, found in (
        ({"params": STACK["params"]}, "the parts params"),
        (STACK | {"more": np.zeros((6, 1))}, "the parts control, more, params"),
        (np.zeros((6, 2)), "no parts"),
    ):
        with pytest.raises(ValueError, match=f"by_part: rules are for control, params, and the message has {found}"):
            aggregate(by_part(params=mean, control=mean), stack)


def test_a_method_of_one_part_has_none():
    algorithm = fl.algorithms.fedavg(
        lambda params, batch, key: params * batch["x"], fl.algorithms.scale_by_fedadam(), batches=fl.Batches(1), population=2,
        aggregator=aggregators.by_part(params=aggregators.mean(), control=aggregators.mean()),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"by_part: .* the message has no parts: give each part its rule \(fl.algorithms.scaffold sends"):
        algorithm.init(jnp.zeros(()), jax.random.key(0))
