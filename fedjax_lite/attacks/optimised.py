"""Attacks that search for a harmful message: within the distances of honest messages, or by gradients through the rule."""

import jax
import jax.numpy as jnp

from fedjax_lite import tree
from fedjax_lite.aggregators.gram import squared_distances
from fedjax_lite.aggregators.sums import difference, inner, squared_norms
from fedjax_lite.attacks.attack import Attack, Seen
from fedjax_lite.attacks.send import all_send, deviation_of, mean_of
from fedjax_lite.base import Number, Tree
from fedjax_lite.refuse import positive, whole
from fedjax_lite.tree import squared_norm

HALVINGS = 7  # of the budget, in search of a length at which the rule still counts the message


def min_max(direction: str = "std") -> Attack:
    """All send mu + gamma p, no further from each honest message than the two furthest honest messages are apart.

    The largest gamma >= 0 with max_i ||m - H_i|| <= max_ij ||H_i - H_j||: the least over i of the larger root of
    gamma^2 ||p||^2 + 2 gamma <p, mu - H_i> + ||mu - H_i||^2 - max_jl ||H_j - H_l||^2.

    Args:
        direction: p: "unit" -mu/||mu||, "std" -sigma, "sign" -sign(mu).

    Raises:
        ValueError: for an unknown direction.

    >>> import fedjax_lite as fl
    >>> stack, bad = jnp.array([2.0, 2.0, 5.0, 9.0]), jnp.arange(4) == 3
    >>> seen = fl.attacks.Seen(stack, bad, ~bad, jnp.ones(4), aggregate=lambda stack: jnp.mean(stack, axis=0))
    >>> round(fl.attacks.min_max().messages(seen, ())[0][3].item(), 3)
    2.0

    Source: Shejwalkar and Houmansadr 2021, "Manipulating the Byzantine", section 4.4.
    """
    perturbed = _perturbation("min_max", direction)

    def send(seen, state):
        mean = mean_of(seen)
        p = perturbed(seen, mean)
        from_mean = difference(seen.messages, mean)
        pairs = squared_distances(seen.messages, seen.honest)
        widest = jnp.max(jnp.where(jnp.isfinite(pairs), pairs, 0))
        square, along = squared_norm(p), -inner(from_mean, p, seen.honest)
        rest = squared_norms(from_mean, seen.honest) - widest
        root = -along + jnp.sqrt(jnp.maximum(along**2 - square * rest, 0))
        gamma = jnp.min(jnp.where(seen.honest, root, jnp.inf)) / jnp.where(square > 0, square, 1)
        return _moved(seen, mean, p, jnp.where((square > 0) & jnp.any(seen.honest), jnp.maximum(gamma, 0), 0)), state

    return Attack(send)


def min_sum(direction: str = "std") -> Attack:
    """All send mu + gamma p; its squared distances to the honest messages sum to at most the largest sum of an honest message.

    The largest gamma with sum_i ||m - H_i||^2 <= max_j sum_i ||H_j - H_i||^2, which is
    sqrt((max_j sum_i ||H_j - H_i||^2 - sum_i ||mu - H_i||^2) / (h ||p||^2)) for h honest messages.

    Args:
        direction: p: "unit" -mu/||mu||, "std" -sigma, "sign" -sign(mu).

    Raises:
        ValueError: for an unknown direction.

    >>> import fedjax_lite as fl
    >>> stack, bad = jnp.array([2.0, 2.0, 5.0, 9.0]), jnp.arange(4) == 3
    >>> seen = fl.attacks.Seen(stack, bad, ~bad, jnp.ones(4), aggregate=lambda stack: jnp.mean(stack, axis=0))
    >>> round(fl.attacks.min_sum().messages(seen, ())[0][3].item(), 3)
    1.0

    Source: Shejwalkar and Houmansadr 2021, "Manipulating the Byzantine", section 4.5.
    """
    perturbed = _perturbation("min_sum", direction)

    def send(seen, state):
        mean = mean_of(seen)
        p = perturbed(seen, mean)
        pairs = squared_distances(seen.messages, seen.honest)
        most = jnp.max(jnp.sum(jnp.where(jnp.isfinite(pairs), pairs, 0), axis=1))
        own = jnp.sum(squared_norms(difference(seen.messages, mean), seen.honest))
        length = jnp.sum(seen.honest) * squared_norm(p)
        return _moved(seen, mean, p, jnp.sqrt(jnp.maximum(most - own, 0) / jnp.where(length > 0, length, 1))), state

    return Attack(send)


def worst_case(budget: Number = 1.0, steps: int = 20) -> Attack:
    """All send the message within a budget that back-propagation through the server's own rule finds most harmful.

    maximise ||R(V) - mu|| over m with ||m - mu|| <= B s, s = sqrt(mean_i ||H_i - mu||^2) the honest spread, by gradient ascent along each
    of -mu, -sigma and -sign(mu): from the most harmful of B s, B s / 2, ... B s / 2^7 along it, since a rule may leave out messages
    further away. `steps` times m moves along the normalised gradient, at first a quarter of its distance to mu, and is projected back; a
    step that does no more harm is taken back and halved. The best of all points passed is sent; against a jumpy rule a larger budget may
    find a little less. The rule must have a gradient; where it selects, this follows the messages it selects. Costs 24 aggregations,
    and 3 (steps + 1) with gradients.

    Args:
        budget: B > 0, in honest spreads: 1 hides among the honest messages.
        steps: of the ascent, from each start; with 0 only lengths are tried, and the rule needs no gradient.

    Raises:
        ValueError: for a budget that is not positive, steps that are negative or not whole.

    >>> import fedjax_lite as fl
    >>> stack, bad = jnp.array([2.0, 2.0, 5.0, 9.0]), jnp.arange(4) == 3
    >>> seen = fl.attacks.Seen(stack, bad, ~bad, jnp.ones(4), aggregate=lambda stack: jnp.mean(stack, axis=0))
    >>> round(fl.attacks.worst_case(budget=1.0).messages(seen, ())[0][3].item(), 3)
    1.586
    """
    positive("worst_case", "budget", budget)
    whole("worst_case", "steps", steps)

    def send(seen, state):
        mean = mean_of(seen)
        honest = jnp.maximum(jnp.sum(seen.honest), 1)
        radius = budget * jnp.sqrt(jnp.sum(squared_norms(difference(seen.messages, mean), seen.honest)) / honest)

        def harm(offset):
            """Return the squared distance from mu to the aggregate if attackers send mu + `offset`."""
            sent = all_send(jax.tree.map(jnp.add, mean, offset), seen)
            aggregate = seen.aggregate(tree.where(seen.byzantine, sent, seen.messages))
            distance = squared_norm(jax.tree.map(jnp.subtract, aggregate, mean))
            return jnp.where(jnp.isnan(distance), -1, distance)  # NaN is never the most harmful

        def ascend(_, search):
            """Take one step from the best offset, or halve the step if the harm does not grow."""
            best, slope, most, step = search
            offset = _within(jax.tree.map(jnp.add, best, _of_length(slope, step)), radius)
            now, there = jax.value_and_grad(harm)(offset)
            best, slope = tree.where(now > most, (offset, there), (best, slope))
            return best, slope, jnp.maximum(now, most), jnp.where(now > most, step, step / 2)

        def climb(direction):
            """Ascend from the most harmful length along `direction`; return the best offset and its harm."""
            lengths = radius * 0.5 ** jnp.arange(HALVINGS + 1)
            first = jnp.argmax(jax.lax.map(lambda length: harm(_of_length(direction, length)), lengths))
            offset = _of_length(direction, lengths[first])
            if not steps:
                return offset, harm(offset)
            most, slope = jax.value_and_grad(harm)(offset)
            best, _, most, _ = jax.lax.fori_loop(0, int(steps), ascend, (offset, slope, most, lengths[first] / 4))
            return best, most

        directions = [_perturbation("worst_case", p)(seen, mean) for p in ("unit", "std", "sign")]
        offsets, harms = jax.lax.map(climb, jax.tree.map(lambda *x: jnp.stack(x), *directions))
        best = jax.tree.map(lambda x: x[jnp.argmax(harms)], offsets)
        return all_send(jax.tree.map(jnp.add, mean, best), seen), state

    return Attack(send)


def _perturbation(attack: str, direction: str):
    """Make `p(seen, mean)`, the perturbation that `direction` names."""
    if direction not in ("unit", "std", "sign"):
        raise ValueError(f'{attack}: direction must be "unit", "std" or "sign", got {direction!r}')

    def p(seen: Seen, mean: Tree) -> Tree:
        if direction == "std":
            return jax.tree.map(jnp.negative, deviation_of(seen))
        return jax.tree.map(lambda x: -jnp.sign(x), mean) if direction == "sign" else _of_length(jax.tree.map(jnp.negative, mean), 1.0)

    return p


def _moved(seen: Seen, mean: Tree, p: Tree, gamma) -> Tree:
    """Return mean + gamma p for every slot, `[clients, ...]`."""
    return all_send(jax.tree.map(lambda m, p: m + gamma.astype(m.dtype) * p, mean, p), seen)


def _of_length(direction: Tree, length) -> Tree:
    """Scale `direction` to `length`; zeros stay zeros."""
    square = squared_norm(direction)
    factor = length / jnp.sqrt(jnp.where(square > 0, square, 1))
    return jax.tree.map(lambda x: x * jnp.asarray(factor, x.dtype), direction)


def _within(offset: Tree, radius) -> Tree:
    """Scale `offset` down to a norm of at most `radius`."""
    square = squared_norm(offset)
    factor = jnp.minimum(1, radius / jnp.sqrt(jnp.where(square > 0, square, 1)))
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), offset)
