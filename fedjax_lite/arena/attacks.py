"""The built-in attacks in the arena, with their strengths, and one attack that is any of them by its number."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite import attacks as of
from fedjax_lite.arena.field import CLASSES
from fedjax_lite.attacks import Attack

ATTACKS: dict[str, Attack] = {
    "sign_flip": of.sign_flip(),
    "opposite_mean(scale=5)": of.opposite_mean(scale=5.0),
    "ipm(scale=0.5)": of.ipm(scale=0.5),
    "alie(z=1.5)": of.alie(z=1.5),
    "mimic": of.mimic(),
    "min_max": of.min_max(),
    "min_sum": of.min_sum(),
    "worst_case(budget=10)": of.worst_case(budget=10.0, steps=5),
    "gaussian(std=10)": of.gaussian(std=10.0),
    "random(scale=5)": of.random(scale=5.0),
    "scaling(factor=-10)": of.scaling(factor=-10.0),
    "model_replacement": of.model_replacement(),
    "free_rider": of.free_rider(),
    "nan": of.nan(),
    "label_flip": of.label_flip(classes=CLASSES),
    "backdoor(boost=5)": of.backdoor(size=2, boost=5.0),
}
BY_GRADIENTS = "worst_case(budget=10)"
WITHOUT_GRADIENTS = of.worst_case(budget=10.0, steps=0)  # for rules through which no gradient can be taken
AGGREGATIONS = 24 + 4 * 3 * 6  # of `BY_GRADIENTS` a round, with one with a gradient as four
LEFT_OUT = {"attacked": "puts an attack on a rule", "byzantine": "chooses clients", "measured": "measures", "z_max": "a number of alie"}


def one_of(attacks: Sequence[Attack], which: Any) -> Attack:
    """Make the attack `attacks[which]`; `which` may be a tracer, and only that attack is computed.

    >>> seen = of.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> attack = one_of([of.sign_flip(), of.free_rider()], jnp.int32(1))
    >>> attack.messages(seen, attack.init(jnp.zeros(())))[0][3].item()
    0.0
    """

    def messages(seen, states):
        def branch(i, attack):
            def send(states):
                if attack.messages is None:
                    return seen.messages, states
                sent, state = attack.messages(seen, states[i])
                sent = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), sent, seen.messages)
                return sent, (*states[:i], state, *states[i + 1 :])

            return send

        return jax.lax.switch(which, [branch(i, attack) for i, attack in enumerate(attacks)], states)

    def examples(batch, key):
        def branch(attack):
            return lambda batch: batch if attack.examples is None else attack.examples(batch, key)

        return jax.lax.switch(which, list(map(branch, attacks)), batch)

    def trigger(examples):
        def branch(attack):
            def shown(examples):
                nothing = examples, examples["y"], jnp.zeros(examples["y"].shape, bool)
                return nothing if attack.trigger is None else attack.trigger(examples)

            return shown

        return jax.lax.switch(which, list(map(branch, attacks)), examples)

    return Attack(messages, lambda message: tuple(attack.init(message) for attack in attacks), examples, trigger)
