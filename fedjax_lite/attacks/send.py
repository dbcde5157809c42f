"""Attacks by a formula: of the attacker's own message, or of the honest messages' mean and deviation."""

import warnings

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from fedjax_lite.aggregators.sums import difference, sum_rows
from fedjax_lite.attacks.attack import Attack, Seen
from fedjax_lite.base import Number, Tree
from fedjax_lite.refuse import finite, positive


def sign_flip(scale: Number = 1.0) -> Attack:
    """Each sends the opposite of its own message: -c V_k.

    Args:
        scale: c >= 0.

    Raises:
        ValueError: for a scale that is negative or not finite.

    >>> import fedjax_lite as fl
    >>> seen = fl.attacks.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> fl.attacks.sign_flip().messages(seen, ())[0][3].item()
    -9.0

    Source: Li et al. 2019, "RSA", section 5; as in Li et al. 2021 (Ditto).
    """
    positive("sign_flip", "scale", scale, or_zero=True)
    return Attack(lambda seen, state: (_times(-scale, seen.messages), state))


def opposite_mean(scale: Number = 1.0) -> Attack:
    """All send the opposite of the honest mean: -c mu. (Other packages call this sign flipping, too.)

    Args:
        scale: c >= 0.

    Raises:
        ValueError: for a scale that is negative or not finite.

    >>> import fedjax_lite as fl
    >>> seen = fl.attacks.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> fl.attacks.opposite_mean().messages(seen, ())[0][3].item()
    -3.0

    Source: Allen-Zhu et al. 2020, "Byzantine-resilient non-convex stochastic gradient descent", section 4.
    """
    positive("opposite_mean", "scale", scale, or_zero=True)
    return _common(lambda seen: _times(-scale, mean_of(seen)))


def ipm(scale: Number = 0.5) -> Attack:
    """All send -epsilon mu, so that the aggregate points against the honest mean (inner product manipulation, fall of empires).

    Args:
        scale: epsilon >= 0; 0.1 to 0.5 is hard to see, 2 to 10 is strong.

    Raises:
        ValueError: for a scale that is negative or not finite.

    >>> import fedjax_lite as fl
    >>> seen = fl.attacks.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> fl.attacks.ipm(scale=0.5).messages(seen, ())[0][3].item()
    -1.5

    Source: Xie, Koyejo and Gupta 2020, "Fall of empires", section 4.
    """
    positive("ipm", "scale", scale, or_zero=True)
    return _common(lambda seen: _times(-scale, mean_of(seen)))


def alie(z: Number | None = None) -> Attack:
    """All send mu - z sigma, coordinate by coordinate: a little is enough.

    Args:
        z: how many standard deviations (of the honest messages, with divisor n-f-1); by default `z_max` of the clients present, which is
            small for small cohorts. With f = 1 or 2 the default is mostly not positive, and this is no attack: where f is known,
            `attacked` warns, by the numbers of the whole population.

    Raises:
        ValueError: for a z that is not finite.

    >>> import fedjax_lite as fl
    >>> seen = fl.attacks.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> fl.attacks.alie(z=1.0).messages(seen, ())[0][3].item()
    1.0

    Source: Baruch, Baruch and Goldberg 2019, "A little is enough", algorithm 3.
    """
    if z is not None:
        finite("alie", "z", z)

    def send(seen):
        f = jnp.sum(seen.byzantine)
        many = z_max(jnp.sum(seen.honest) + f, f) if z is None else z
        return jax.tree.map(lambda m, s: m - jnp.asarray(many, m.dtype) * s, mean_of(seen), deviation_of(seen))

    def warn(clients, num_byzantine):
        if z is None and (most := float(z_max(clients, num_byzantine))) <= 0:
            warnings.warn(
                f"alie: z_max({clients}, {num_byzantine}) = {most:.2f} is not positive, so that attackers send the honest mean, or what is "
                "better for the model: give z, for instance z=1.5",
                stacklevel=3,  # the caller of attacked
            )

    return _common(send)._replace(warn=warn)


def z_max(clients: Number, num_byzantine: Number) -> Float[Array, ""]:
    """z_max = Phi^-1((n-f-s)/(n-f)), s = floor(n/2 + 1) - f: the deviation beyond which s honest clients are expected.

    >>> round(float(z_max(20, 4)), 3)
    0.157
    """
    honest = clients - num_byzantine
    supporters = clients // 2 + 1 - num_byzantine
    # Clipped inside (0, 1): with all honest clients as supporters, or none, z_max would be infinite.
    share = jnp.clip((honest - supporters) / jnp.maximum(honest, 1), 1e-3, 1 - 1e-3)
    return ndtri(jnp.asarray(share, jnp.result_type(float)))


def gaussian(std: Number = 1.0, mean: Number = 0.0) -> Attack:
    """Each sends noise of its own: coordinates N(m, s^2).

    Args:
        std: s >= 0, in the units of a message.
        mean: m.

    Raises:
        ValueError: for a deviation that is negative, numbers that are not finite.

    >>> import fedjax_lite as fl
    >>> stack, keys = jnp.outer(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.ones(10_000)), jax.random.split(jax.random.key(0), 4)
    >>> seen = fl.attacks.Seen(stack, jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4), keys)
    >>> sent = fl.attacks.gaussian(std=2.0, mean=7.0).messages(seen, ())[0][3]
    >>> round(float(sent.std()), 1), round(float(sent.mean()), 1)
    (2.0, 7.0)

    Source: Blanchard et al. 2017, "Machine learning with adversaries", section 6.
    """
    positive("gaussian", "std", std, or_zero=True)
    finite("gaussian", "mean", mean)

    def send(seen, state):
        return jax.tree.map(lambda x: mean + jnp.asarray(std, x.dtype) * x, _normal(seen)), state

    return Attack(send)


def random(scale: Number = 1.0) -> Attack:
    """Each sends noise as wide as the honest messages spread: coordinates N(0, (c sigma_j)^2).

    Args:
        scale: c >= 0.

    Raises:
        ValueError: for a scale that is negative or not finite.

    >>> import fedjax_lite as fl
    >>> stack, keys = jnp.outer(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.ones(10_000)), jax.random.split(jax.random.key(0), 4)
    >>> seen = fl.attacks.Seen(stack, jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4), keys)
    >>> sent = fl.attacks.random(scale=1.0).messages(seen, ())[0][3]
    >>> round(float(sent.std()), 1), round(abs(float(sent.mean())), 1)  # 1, 3 and 5 have the deviation 2
    (2.0, 0.0)
    """
    positive("random", "scale", scale, or_zero=True)

    def send(seen, state):
        return jax.tree.map(lambda x, s: jnp.asarray(scale, x.dtype) * s[None] * x, _normal(seen), deviation_of(seen)), state

    return Attack(send)


def scaling(factor: Number) -> Attack:
    """Each sends its own message times a factor; with poisoned examples, `fl.attacks.backdoor(boost=factor)`.

    Args:
        factor: finite.

    Raises:
        ValueError: for a factor that is not finite.

    >>> import fedjax_lite as fl
    >>> seen = fl.attacks.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> fl.attacks.scaling(factor=10.0).messages(seen, ())[0][3].item()
    90.0

    Source: Bagdasaryan et al. 2020, "How to backdoor federated learning", section 4.2.
    """
    finite("scaling", "factor", factor)
    return Attack(lambda seen, state: (_times(factor, seen.messages), state))


def model_replacement(server_rate: Number = 1.0) -> Attack:
    """Attackers together replace the global model by their own: each sends (n / (eta_g n_attackers)) V_k.

    n are the examples of all clients present, n_attackers those of the attackers: under the mean weighted by examples, with
    server rate eta_g and honest messages that cancel, the new model is the attackers' mean model.

    Args:
        server_rate: eta_g > 0.

    Raises:
        ValueError: for a rate that is not positive.

    >>> import fedjax_lite as fl
    >>> seen = fl.attacks.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> fl.attacks.model_replacement().messages(seen, ())[0][3].item()
    36.0

    Source: Bagdasaryan et al. 2020, equation 3; Bhagoji et al. 2019.
    """
    positive("model_replacement", "server_rate", server_rate)

    def send(seen, state):
        attackers = jnp.sum(jnp.where(seen.byzantine, seen.share, 0))
        factor = jnp.sum(seen.share) / jnp.where(attackers > 0, attackers, 1)
        return _times(factor / server_rate, seen.messages), state

    return Attack(send)


def free_rider() -> Attack:
    """Each sends zeros: it takes the model and gives nothing.

    >>> import fedjax_lite as fl
    >>> seen = fl.attacks.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> fl.attacks.free_rider().messages(seen, ())[0][3].item()
    0.0

    Source: Lin, Du and Liu 2019, "Free-riders in federated learning".
    """
    return Attack(lambda seen, state: (jax.tree.map(jnp.zeros_like, seen.messages), state))


def nan() -> Attack:
    """Each sends NaN, as a client does whose training diverged.

    >>> import fedjax_lite as fl
    >>> seen = fl.attacks.Seen(jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.arange(4) == 3, jnp.arange(4) < 3, jnp.ones(4))
    >>> fl.attacks.nan().messages(seen, ())[0][3].item()
    nan
    """
    return Attack(lambda seen, state: (jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), seen.messages), state))


def mean_of(seen: Seen) -> Tree:
    """Return mu, the mean of the honest messages; 0 without honest messages."""
    total, count = sum_rows(lambda message: (message, 1.0), seen.honest, seen.messages)
    return jax.tree.map(lambda x: x / jnp.maximum(count, 1).astype(x.dtype), total)


def deviation_of(seen: Seen) -> Tree:
    """Return sigma, the honest messages' standard deviation by coordinate, with divisor n - 1; 0 for a single message."""
    squares = sum_rows(lambda message: jax.tree.map(jnp.square, message), seen.honest, difference(seen.messages, mean_of(seen)))
    return jax.tree.map(lambda x: jnp.sqrt(x / jnp.maximum(jnp.sum(seen.honest) - 1, 1).astype(x.dtype)), squares)


def all_send(message: Tree, seen: Seen) -> Tree:
    """Repeat `message` in every slot, `[clients, ...]`."""
    return jax.tree.map(lambda m, x: jnp.broadcast_to(m[None], x.shape), message, seen.messages)


def _common(send) -> Attack:
    """Make an attack without state in which all attackers send `send(seen)`."""
    return Attack(lambda seen, state: (all_send(send(seen), seen), state))


def _times(factor: Number, messages: Tree) -> Tree:
    """Multiply `messages` by `factor`, in their dtypes."""
    return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, messages)


def _normal(seen: Seen) -> Tree:
    """Draw standard normal noise in the shape of the messages, from the clients' own keys."""
    leaves, structure = jax.tree.flatten(seen.messages)

    def draw(i, x):
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), x.shape[1:], x.dtype))(seen.keys)

    return jax.tree.unflatten(structure, [draw(i, x) for i, x in enumerate(leaves)])
