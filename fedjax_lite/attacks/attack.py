"""What an attack is, who mounts it, and how it comes into a round."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite import tree
from fedjax_lite.aggregators.screen import is_finite
from fedjax_lite.base import Aggregator, ClientWork, Key, Number, Tree
from fedjax_lite.models.loss_fn import LossFn, told
from fedjax_lite.refuse import integer, whole
from fedjax_lite.tree import wide

_EXAMPLES = np.uint32(2**32 - 5)  # of an attacker's key: what honest work draws from its key knows no stream like this


class Seen(NamedTuple):
    """What the attackers see of a round: everything."""

    messages: Tree  # [clients, ...], in float32 or wider; zeros in empty slots
    byzantine: Bool[Array, " clients"]  # the attackers present
    honest: Bool[Array, " clients"]  # the others present, but those whose message is not finite
    share: Float[Array, " clients"]  # the examples a client holds times its weight
    keys: Key  # [clients], by client and not by slot
    key: Key
    aggregate: Callable[[Tree], Tree]  # messages [clients, ...] -> what the server would make of them


class Attack(NamedTuple):
    """What Byzantine clients do; each part may be missing."""

    messages: Callable[[Seen, Tree], tuple[Tree, Tree]] | None = None  # seen, state -> what they send [clients, ...], state
    init: Callable[[Tree], Tree] = lambda message: ()  # one message -> the attackers' first state
    examples: Callable[[Tree, Key], Tree] | None = None  # a batch, key -> the batch they train on instead
    trigger: Callable[[Tree], tuple[Tree, Int[Array, " batch"], Bool[Array, " batch"]]] | None = None
    # a batch -> the batch as attackers would show it to the model, the class they want, and which examples tell
    warn: Callable[[int, int], None] = lambda clients, num_byzantine: None  # warns where it would be no attack


def byzantine(num_byzantine: Number, population: int, seed: int = 0, ids: Any = None) -> Bool[Array, " population"]:
    """Which clients of the population are Byzantine: so many drawn from a seed, or those named.

    Args:
        num_byzantine: how many; may be a tracer. A client that is Byzantine among f is so among f+1 too.
        population: how many clients there are.
        seed: of the draw.
        ids: their ids, a list or an array, if they are named; `num_byzantine` is then how many there are.

    Raises:
        ValueError: for a number that is negative, not whole or above the population; ids outside the population, given twice, or
            as many as another number.

    >>> byzantine(1, 3, ids=[2]).tolist()
    [False, False, True]
    """
    whole("byzantine", "num_byzantine", num_byzantine)
    integer("byzantine", "population", population, least=1)
    whole("byzantine", "seed", seed)
    if not isinstance(num_byzantine, jax.Array) and num_byzantine > population:
        raise ValueError(f"byzantine: num_byzantine={num_byzantine} is more than the population of {population}: lower it")
    if ids is None:
        return jnp.argsort(jax.random.permutation(jax.random.key(seed), population)) < num_byzantine
    listed = np.asarray(ids)
    whole_numbers = listed.ndim == 1 and (listed.dtype.kind in "iu" or not listed.size)
    if not whole_numbers or len(np.unique(listed)) < len(listed) or not ((listed >= 0) & (listed < population)).all():
        raise ValueError(f"byzantine: ids must be different client ids from 0 to {population - 1}, got {ids!r}")
    if not isinstance(num_byzantine, jax.Array) and num_byzantine != len(listed):
        raise ValueError(f"byzantine: num_byzantine={num_byzantine}, but {len(listed)} ids are given: make them agree")
    return jnp.zeros(population, bool).at[jnp.asarray(listed, jnp.int32)].set(True)


def attacked(attack: Attack, byzantine: Array, work: Any, aggregator: Aggregator) -> tuple[Any, Aggregator]:
    """Client work, or the loss function that it is made of, and an aggregator with an attack on them.

    Byzantine clients train on the attack's examples and send the attack's messages; nothing changes for the others. An attack on
    messages sees all of them together, so the aggregator no longer adds, and a private one keeps its guarantee for attackers that don't.

    Args:
        attack: for instance `fl.attacks.ipm(scale=0.5)`.
        byzantine: who mounts it, truth values `[population]` from `fl.attacks.byzantine`.
        work: of honest clients; or their loss function, for the functions of `fl.algorithms` that take one.
        aggregator: of the server, which does not know who is who.

    Raises:
        ValueError: if `byzantine` is not an array `[population]` of truth values.

    >>> import fedjax_lite as fl
    >>> work = fl.ClientWork(None, None, None, None)
    >>> _, aggregator = attacked(fl.attacks.sign_flip(), byzantine(1, 3, ids=[2]), work, fl.aggregators.mean())
    >>> stack, cohort = jnp.array([1.0, 4.0, 1.0]), fl.sampling.cohort(jax.random.key(0), jnp.ones(3, int), jnp.arange(3))
    >>> state = aggregator.init(stack[0])
    >>> round(float(aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(0))[0]), 3)
    1.333
    """
    if not isinstance(attack, Attack):
        raise TypeError(f"attacked: attack must be a fl.attacks.Attack, got {attack!r}: call the function that makes one")
    if jnp.ndim(byzantine) != 1 or not jnp.issubdtype(jnp.result_type(byzantine), jnp.bool_):
        raise ValueError(f"attacked: byzantine must be truth values [population], as fl.attacks.byzantine gives, got {byzantine!r}")
    if not isinstance(byzantine, jax.core.Tracer) and np.any(byzantine):
        attack.warn(len(byzantine), int(np.sum(byzantine)))
    if attack.examples is not None:
        work = (_poisoned if isinstance(work, ClientWork) else _poisoned_loss)(attack.examples, byzantine, work)
    return work, aggregator if attack.messages is None else _forged(attack.messages, attack.init, byzantine, aggregator)


def _poisoned(poisoned: Callable[[Tree, Key], Tree], byzantine: Array, work: ClientWork) -> ClientWork:
    """Client work that trains on the attack's examples where the client is Byzantine."""

    def step(shared, own, carry, batch):
        bad = jnp.take(byzantine, batch.client.id, mode="clip")
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(batch.client.key, _EXAMPLES), batch.epoch), batch.step)
        examples = tree.where(bad, poisoned(batch.examples, key), batch.examples)
        return work.step(shared, own, carry, batch._replace(examples=examples))

    return work._replace(step=step)


def _poisoned_loss(poisoned: Callable[[Tree, Key], Tree], byzantine: Array, loss_fn: LossFn) -> LossFn:
    """A loss function that a Byzantine client takes of the attack's examples; in evaluation it is as it was."""

    def loss(params, examples, key, mask=None, row=None, shared=None, own=None, client=None, round=None, epoch=None):
        if client is not None:
            bad = jnp.take(byzantine, client.id, mode="clip")
            examples = tree.where(bad, poisoned(examples, jax.random.fold_in(key, _EXAMPLES)), examples)
        beside = {"mask": mask, "row": row, "shared": shared, "own": own, "client": client, "round": round, "epoch": epoch}
        return told(loss_fn, params, examples, key, **beside)

    return loss


def _forged(messages_of: Callable, init: Callable, byzantine: Array, aggregator: Aggregator) -> Aggregator:
    """An aggregator that is given the attack's messages where the client is Byzantine."""

    def collect(messages, cohort, state):
        del state
        return messages, cohort

    def finish(part, state, key):
        (messages, cohort), (mine, others) = part, state
        attack_key, key = jax.random.split(key)
        present = cohort.weight > 0
        bad = present & jnp.take(byzantine, cohort.id, mode="clip")

        def aggregate(messages):
            return aggregator.finish(aggregator.collect(messages, cohort, others), others, key)[0]

        seen = Seen(
            tree.zero_where_not(present, jax.tree.map(wide, messages)),
            bad,
            present & ~bad & is_finite(messages, present),
            jnp.where(present, cohort.weight * cohort.size, 0),
            jax.vmap(jax.random.fold_in, (None, 0))(attack_key, cohort.id),
            attack_key,
            aggregate,
        )
        sent, mine = messages_of(seen, mine)
        messages = tree.where(bad, tree.cast_like(sent, messages), messages)
        aggregate_, others, metrics = aggregator.finish(aggregator.collect(messages, cohort, others), others, key)
        return aggregate_, (mine, others), metrics

    privacy = aggregator.privacy and aggregator.privacy._replace(provided="real attackers see no message but their own")
    return Aggregator(
        init=lambda message: (init(message), aggregator.init(message)),
        collect=collect,
        finish=finish,
        additive=False,
        privacy=privacy,
        bits=aggregator.bits,
    )
