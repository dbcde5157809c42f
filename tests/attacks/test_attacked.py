"""How an attack comes into a round: what attackers draw, and of whom they learn."""

import itertools

import jax
import jax.numpy as jnp
import pytest

import fedjax_lite as fl
from fedjax_lite import aggregators
from fedjax_lite.attacks import Attack, attacked

SHOWS = fl.ClientWork(lambda params, key: (), lambda *_: (), lambda shared, own, carry, batch: (batch.examples, {}), lambda *_: ())


def cohort(weight):
    return fl.sampling.cohort(jax.random.key(0), jnp.full(len(weight), 3), jnp.arange(len(weight)), jnp.asarray(weight))


def test_every_batch_is_poisoned_by_a_draw_of_its_own():
    words = Attack(examples=lambda examples, key: jax.random.key_data(key))
    work, _ = attacked(words, jnp.ones(2, bool), SHOWS, aggregators.mean())
    drawn = set()
    for client, epoch, step in itertools.product(range(2), range(2), range(3)):
        one = jax.tree.map(lambda x, k=client: x[k], cohort([1.0, 1.0]))
        batch = fl.Batch(jnp.zeros(2, jnp.uint32), jnp.ones(2, bool), jnp.int32(step), jnp.int32(epoch), jnp.int32(0), one)
        drawn.add(tuple(work.step((), (), (), batch)[0].tolist()))
    assert len(drawn) == 2 * 2 * 3
    clients = cohort([1.0, 1.0]).key
    step_of = lambda k, step, i: jax.random.fold_in(jax.random.fold_in(clients[k], step), i)  # noqa: E731  what a loss may split its key into
    theirs = {tuple(jax.random.key_data(step_of(*each)).tolist()) for each in itertools.product(range(2), range(3), range(3))}
    assert not drawn & theirs


def test_nothing_is_learned_of_attackers_nor_of_messages_that_are_not_finite_or_not_there():
    seen_honest = Attack(lambda seen, state: (seen.messages, seen.honest), init=lambda message: jnp.zeros(4, bool))
    _, rule = attacked(seen_honest, jnp.arange(4) == 1, SHOWS, aggregators.mean())
    messages, here = jnp.array([1.0, 2.0, jnp.nan, jnp.nan]), cohort([1.0, 1.0, 1.0, 0.0])
    aggregate, (honest, _), _ = rule.finish(rule.collect(messages, here, ()), (rule.init(messages[0])), jax.random.key(0))
    assert honest.tolist() == [True, False, False, False] and aggregate == 1.5


def test_an_attack_is_put_on_while_a_program_is_traced():
    """As in an experiment of a study, where who attacks is known before."""
    bad = jnp.arange(4) == 1

    @jax.jit
    def aggregate(messages, here):
        _, rule = attacked(fl.attacks.sign_flip(), bad, SHOWS, aggregators.mean())
        return rule.finish(rule.collect(messages, here, ()), rule.init(messages[0]), jax.random.key(0))[0]

    assert aggregate(jnp.array([1.0, 2.0, 3.0, 4.0]), cohort([1.0] * 4)) == (1 - 2 + 3 + 4) / 4


def test_where_a_little_is_nothing_there_is_a_warning():
    """z_max by the paper's formula: Phi^-1(0.5) of 20 and 2, Phi^-1(4 / 9) of 10 and 1, Phi^-1(9 / 16) of 20 and 4."""

    def mounted(attack, byzantine):
        return attacked(attack, byzantine, SHOWS, aggregators.mean())

    for population, f, z in ((20, 2, "0.00"), (10, 1, "-0.14")):
        few = fl.attacks.byzantine(f, population)
        with pytest.warns(
            UserWarning, match=rf"alie: z_max\({population}, {f}\) = -?{z.lstrip('-')} is not positive.* give z, for instance z=1.5"
        ):
            mounted(fl.attacks.alie(), few)
        mounted(fl.attacks.alie(z=1.5), few)  # warnings are errors here
    mounted(fl.attacks.alie(), fl.attacks.byzantine(4, 20))
    mounted(fl.attacks.alie(), fl.attacks.byzantine(0, 20))
    jax.jit(lambda f: mounted(fl.attacks.alie(), fl.attacks.byzantine(f, 20)) and f)(1)  # not known
