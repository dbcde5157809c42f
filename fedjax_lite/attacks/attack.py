"""The parts of an attack, the choice of Byzantine clients, and the wrappers that put an attack into a round."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fedjax_lite import tree
from fedjax_lite.aggregators.non_finite import is_finite
from fedjax_lite.base import Aggregator, ClientWork, Key, Number, Tree
from fedjax_lite.models.loss_fn import LossFn, call_loss
from fedjax_lite.refuse import integer, whole
from fedjax_lite.tree import wide

_EXAMPLES = np.uint32(2**32 - 5)  # stream of an attacker's key for its examples; honest work draws from other streams


class Seen(NamedTuple):
    """A round as the attackers see it, in full."""

    messages: Tree  # [clients, ...], in float32 or wider; zeros in empty slots
    byzantine: Bool[Array, " clients"]  # True for an attacker that is present
    honest: Bool[Array, " clients"]  # True for another client that is present and has a finite message
    share: Float[Array, " clients"]  # a client's number of examples times its weight; 0 in an empty slot
    keys: Key = None  # [clients], functions of the client's id, not of its slot
    key: Key = None  # for draws that attackers share
    aggregate: Callable[[Tree], Tree] | None = None  # messages [clients, ...] -> the aggregate that the server would compute


class Attack(NamedTuple):
    """The parts of an attack; a part that is missing changes nothing."""

    messages: Callable[[Seen, Tree], tuple[Tree, Tree]] | None = None  # seen, state -> messages to send [clients, ...], state
    init: Callable[[Tree], Tree] = lambda message: ()  # one message -> the attackers' first state
    examples: Callable[[Tree, Key], Tree] | None = None  # batch, key -> the batch that attackers train on
    # batch -> the batch with the attackers' trigger, the class that they want, and which examples count for their success
    trigger: Callable[[Tree], tuple[Tree, Int[Array, " batch"], Bool[Array, " batch"]]] | None = None
    warn: Callable[[int, int], None] = lambda clients, num_byzantine: None  # warns where the attack does no harm


def byzantine(num_byzantine: Number, population: int, seed: int = 0, ids: Any = None) -> Bool[Array, " population"]:
    """The Byzantine clients of the population as truth values: a number of them drawn from a seed, or given ids.

    Args:
        num_byzantine: how many; may be a tracer. A client that is Byzantine among f is so among f+1 too.
        population: how many clients there are.
        seed: of the draw.
        ids: the Byzantine clients' ids, a list or an array, in place of a draw; `num_byzantine` must be their number.

    Raises:
        ValueError: for a number that is negative, not whole or above the population; ids outside the population, given twice, or
            not `num_byzantine` of them.

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
    """Client work, or its loss function, and an aggregator, both with an attack on them.

    Byzantine clients train on the attack's examples and send the attack's messages; nothing changes for the others. An attack on
    messages sees all of them together, so the aggregator no longer adds; a private aggregator states its guarantee for real
    attackers, which see no message but their own.

    Args:
        attack: for instance `fl.attacks.ipm(scale=0.5)`.
        byzantine: the attackers, truth values `[population]` from `fl.attacks.byzantine`.
        work: of honest clients; or their loss function, for the functions of `fl.algorithms` that take one.
        aggregator: of the server, which does not know the attackers.

    Raises:
        TypeError: if `attack` is none.
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
    if not isinstance(byzantine, jax.core.Tracer) and (number := int(np.asarray(byzantine).sum())):  # NumPy's, also while tracing
        attack.warn(len(byzantine), number)
    if attack.examples is not None:
        work = (_poisoned if isinstance(work, ClientWork) else _poisoned_loss)(attack.examples, byzantine, work)
    return work, aggregator if attack.messages is None else _forged(attack.messages, attack.init, byzantine, aggregator)


def _poisoned(poisoned: Callable[[Tree, Key], Tree], byzantine: Array, work: ClientWork) -> ClientWork:
    """Change `work` so that Byzantine clients train on `poisoned(examples, key)`."""

    def step(shared, own, carry, batch):
        bad = jnp.take(byzantine, batch.client.id, mode="clip")
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(batch.client.key, _EXAMPLES), batch.epoch), batch.step)
        examples = tree.where(bad, poisoned(batch.examples, key), batch.examples)
        return work.step(shared, own, carry, batch._replace(examples=examples))

    return work._replace(step=step)


def _poisoned_loss(poisoned: Callable[[Tree, Key], Tree], byzantine: Array, loss_fn: LossFn) -> LossFn:
    """Change `loss_fn` so that Byzantine clients take the loss of `poisoned(examples, key)`; evaluation, without a client, is unchanged."""

    def loss(params, examples, key, mask=None, row=None, shared=None, own=None, client=None, round=None, epoch=None):
        if client is not None:
            bad = jnp.take(byzantine, client.id, mode="clip")
            examples = tree.where(bad, poisoned(examples, jax.random.fold_in(key, _EXAMPLES)), examples)
        keywords = {"mask": mask, "row": row, "shared": shared, "own": own, "client": client, "round": round, "epoch": epoch}
        return call_loss(loss_fn, params, examples, key, **keywords)

    return loss


def _forged(messages_of: Callable, init: Callable, byzantine: Array, aggregator: Aggregator) -> Aggregator:
    """Change `aggregator` so that `messages_of(seen, state)` replaces the messages of Byzantine clients."""

    def collect(messages, cohort, state):
        del state
        return messages, cohort

    def finish(part, state, key):
        (messages, cohort), (attack_state, aggregator_state) = part, state
        attack_key, key = jax.random.split(key)
        present = cohort.weight > 0
        bad = present & jnp.take(byzantine, cohort.id, mode="clip")

        def aggregate(messages):
            return aggregator.finish(aggregator.collect(messages, cohort, aggregator_state), aggregator_state, key)[0]

        seen = Seen(
            tree.zero_where_not(present, jax.tree.map(wide, messages)),
            bad,
            present & ~bad & is_finite(messages, present),
            jnp.where(present, cohort.weight * cohort.size, 0),
            jax.vmap(jax.random.fold_in, (None, 0))(attack_key, cohort.id),
            attack_key,
            aggregate,
        )
        sent, attack_state = messages_of(seen, attack_state)
        messages = tree.where(bad, tree.cast_like(sent, messages), messages)
        part = aggregator.collect(messages, cohort, aggregator_state)
        forged_aggregate, aggregator_state, metrics = aggregator.finish(part, aggregator_state, key)
        return forged_aggregate, (attack_state, aggregator_state), metrics

    privacy = aggregator.privacy and aggregator.privacy._replace(provided="real attackers see no message but their own")
    return Aggregator(
        init=lambda message: (init(message), aggregator.init(message)),
        collect=collect,
        finish=finish,
        additive=False,
        sums_only=aggregator.sums_only,
        privacy=privacy,
        bits=aggregator.bits,
        weighs=aggregator.weighs,
    )
