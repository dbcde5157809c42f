"""Secure sums: messages in fixed point, hidden by masks that cancel in the sum over the cohort."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from fedjax_lite import tree
from fedjax_lite.base import Aggregator, Key, Tree
from fedjax_lite.ledger import count
from fedjax_lite.refuse import integer, positive


def secure_mean(bound: float | None = None, fraction_bits: int = 16, bits: int = 32, neighbors: int | None = None) -> Aggregator:
    r"""The plain mean of the clients present, as a server learns it that sees only masked messages and their sum.

    q_k = round(2^f clip(m_k, -b, b));  y_k = q_k + sum_{j > k} s_kj - sum_{j < k} s_jk  mod 2^B, over the partners j of k;
    mean = (sum_k y_k - what the masks of those that dropped out left over  mod 2^B, as a signed number) / (2^f M).

    Each pair of clients agrees on a mask s before anyone uploads, here drawn from the round's key and both ids. Slots of weight 0
    had agreed, and dropped out: the server, helped by the others, draws again the masks they share with those that sent, and takes
    them off. Everything is exact integer arithmetic, so the mean differs from the true one by rounding, at most 2^-(f+1) a coordinate
    and two roundings of the aggregate's dtype (in float32 1.2e-7 of it), and by clipping: "secure_overflow" counts the coordinates, over
    all clients present, that were out of range or not finite (NaN counts as 0). This simulates the arithmetic, not the key exchange, and
    hides nothing from whoever runs it.

    A message takes B bits a coordinate, whatever the uplink's compressors do, and "uplink_bits" counts so: masks leave neither zeros nor
    few levels.

    Clients count the same: a weight would tell the server how many examples a client has. Masks cost clients^2 d random words,
    or clients * neighbors * d, and do not change a bit of the result.

    Args:
        bound: b, the largest magnitude of a coordinate; by default the largest for which the cohort's sum can't overflow.
        fraction_bits: f, 0 to 31.
        bits: B, 2 to 32.
        neighbors: the number of clients that each client shares masks with, even: the nearest on a ring of the cohort's slots. None is
            all clients (Bonawitz); 0 is no masks, for speed. Few suffice against few dropouts and colluders (Bell).

    Returns:
        An aggregator that is not additive, with the metric "secure_overflow".

    Raises:
        ValueError: for arguments out of range; when traced, for a cohort with clients * 2^f b >= 2^(B-1), whose sum could overflow.

    >>> import fedjax_lite as fl
    >>> stack, cohort = jnp.array([1.0, 4.0]), fl.sampling.cohort(jax.random.key(0), jnp.array([10, 30]), jnp.arange(2))
    >>> aggregator = secure_mean(bound=8.0)
    >>> mean, _, metrics = aggregator.finish(aggregator.collect(stack, cohort, ()), (), jax.random.key(1))
    >>> float(mean), float(metrics["secure_overflow"])
    (2.5, 0.0)

    Source: Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", section 4, equation 1; Bell
    et al. 2020, "Secure single-server aggregation with (poly)logarithmic overhead" (sparse graphs, here a ring in slot order).
    """
    for name, value, low, high in (("fraction_bits", fraction_bits, 0, 31), ("bits", bits, 2, 32)):
        integer("secure_mean", name, value)
        if not low <= value <= high:
            raise ValueError(f"secure_mean: {name} must be from {low} to {high}, got {value}")
    if bound is not None:
        positive("secure_mean", "bound", bound)
    if neighbors is not None:
        integer("secure_mean", "neighbors", neighbors)
        if neighbors % 2:
            raise ValueError(f"secure_mean: neighbors must be even (as many on each side of the ring), got {neighbors}")

    def finish(part, state, key):
        messages, cohort = part
        present = cohort.weight > 0
        limit = _limit(present.shape[0], bound, fraction_bits, bits)
        numbers, overflow = fixed_point(messages, limit, fraction_bits)
        sent = tree.zero_where_not(present, masked(numbers, cohort.id, key, neighbors))
        total = jax.tree.map(lambda y: jnp.sum(y, axis=0, dtype=jnp.uint32), sent)
        left_over = jax.lax.cond(
            jnp.all(present), lambda: jax.tree.map(jnp.zeros_like, total), lambda: leftover(numbers, cohort.id, present, key, neighbors)
        )
        clients = jnp.maximum(jnp.sum(present), 1)

        def mean(y, left, message):
            signed = jax.lax.bitcast_convert_type((y - left) << (32 - bits), jnp.int32) >> (32 - bits)  # mod 2^bits, with its sign
            dtype = jnp.promote_types(message.dtype, jnp.float32)
            return signed.astype(dtype) / (2.0**fraction_bits * clients.astype(dtype))

        metrics = {"secure_overflow": jnp.sum(jnp.where(present, overflow, 0)).astype(jnp.float32)}
        return jax.tree.map(mean, total, left_over, messages), state, metrics

    return Aggregator(
        init=lambda message: (),
        collect=lambda messages, cohort, state: (messages, cohort),
        finish=finish,
        additive=False,
        sums_only=True,
        bits=lambda message: float(bits * count(message)),  # every coordinate has a mask: a sparse message is sent dense
    )


def fixed_point(messages: Tree, limit: int, fraction_bits: int) -> tuple[Tree, Int[Array, " clients"]]:
    """Return round(2^f x) clipped to +-`limit`, in uint32 (negative numbers wrap), and each client's number of clipped coordinates.

    >>> numbers, clipped = fixed_point(jnp.array([[0.5, -0.25, 9.0]]), limit=16, fraction_bits=2)
    >>> numbers.astype(jnp.int32).tolist(), clipped.tolist()
    ([[2, -1, 16]], [1])
    """

    def leaf(x):
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        most = np.asarray(limit, x.dtype)
        if int(most) > limit:  # the cast to a float rounded up
            most = np.nextafter(most, np.zeros((), x.dtype))
        scaled = jnp.round(x * 2.0**fraction_bits)
        inside = jnp.abs(scaled) <= most  # False for NaN
        whole = jnp.where(jnp.isnan(scaled), 0, jnp.clip(scaled, -most, most)).astype(jnp.int32)
        outside = jnp.sum(~inside, axis=tuple(range(1, x.ndim)), dtype=jnp.int32)
        return jax.lax.bitcast_convert_type(whole, jnp.uint32), outside

    leaves, structure = jax.tree.flatten(messages)
    pairs = [leaf(x) for x in leaves]
    return jax.tree.unflatten(structure, [numbers for numbers, _ in pairs]), sum((clipped for _, clipped in pairs), jnp.int32(0))


def masked(numbers: Tree, ids: Int[Array, " clients"], key: Key, neighbors: int | None = None) -> Tree:
    """Add each client's masks to its `numbers` mod 2^32, `[clients, ...]`; the masks of all slots add up to 0.

    The modulus 2^B divides 2^32, so reducing the sum mod 2^B is enough.

    >>> sent = masked(jnp.zeros((3, 1), jnp.uint32), jnp.arange(3), jax.random.key(0))
    >>> bool((sent != 0).all()), sent.sum(0, dtype=jnp.uint32).tolist()
    (True, [0])
    """

    def add(distance, pairs, sent):
        return jax.tree.map(lambda y, mask: y + mask - jnp.roll(mask, distance, axis=0), sent, pairs)

    return _over_pairs(add, numbers, numbers, ids, key, neighbors)


def leftover(numbers: Tree, ids: Int[Array, " clients"], present: Array, key: Key, neighbors: int | None = None) -> Tree:
    """Sum the masks that present clients share with absent clients, which nothing cancels; the server draws them again."""

    def add(distance, pairs, total):
        here, there = present, jnp.roll(present, -distance)
        plus, minus = (tree.zero_where_not(only, pairs) for only in (here & ~there, there & ~here))
        return jax.tree.map(lambda t, p, m: t + jnp.sum(p - m, axis=0, dtype=jnp.uint32), total, plus, minus)

    return _over_pairs(add, jax.tree.map(lambda x: jnp.zeros_like(x[0]), numbers), numbers, ids, key, neighbors)


def _over_pairs(add, first: Tree, like: Tree, ids: Int[Array, " clients"], key: Key, neighbors: int | None) -> Tree:
    """Fold `add(distance, masks, so_far)` over the ring distances at which slots share masks, from `first`.

    Slot i adds row i of `masks`; slot i + distance, modulo the number of clients, subtracts the row.
    """
    clients, ids = ids.shape[0], ids.astype(jnp.int32)
    reach = clients // 2 if neighbors is None else min(neighbors // 2, clients // 2)
    slots = jnp.arange(clients, dtype=jnp.int32)

    def at(distance, so_far):
        others = jnp.roll(ids, -distance)
        # Halfway around the ring a pair would count from both ends. A client in two slots shares no mask with itself.
        once = (2 * distance < clients) | (slots < distance)
        sign = jnp.where(once, jnp.sign(others - ids), 0)
        low, high = jnp.minimum(ids, others), jnp.maximum(ids, others)
        keys = jax.vmap(lambda a, b: jax.random.fold_in(jax.random.fold_in(key, a), b))(low, high)
        leaves, structure = jax.tree.flatten(like)
        masks = [_signed(sign, jax.vmap(lambda k, i=i, x=x: _words(k, i, x.shape[1:]))(keys)) for i, x in enumerate(leaves)]
        return add(distance, jax.tree.unflatten(structure, masks), so_far)

    return jax.lax.fori_loop(1, reach + 1, at, first) if reach else first


def _words(key: Key, leaf: int, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Draw a random uint32 for each coordinate of the leaf with the number `leaf`."""
    return jax.random.bits(jax.random.fold_in(key, leaf), shape, jnp.uint32)


def _signed(sign: Int[Array, " clients"], words: UInt32[Array, "clients ..."]) -> UInt32[Array, "clients ..."]:
    """Multiply each row of `words` by its `sign`, -1, 0 or 1, mod 2^32."""
    return words * jax.lax.bitcast_convert_type(sign, jnp.uint32).reshape(-1, *[1] * (words.ndim - 1))  # -1 is 2^32 - 1


def _limit(clients: int, bound: float | None, fraction_bits: int, bits: int) -> int:
    """Return the largest magnitude of a fixed-point number for which the sum over `clients` fits in `bits`."""
    most = (2 ** (bits - 1) - 1) // max(clients, 1)
    wanted = most if bound is None else round(bound * 2**fraction_bits)
    if not 1 <= wanted <= most:
        raise ValueError(
            f"secure_mean: the sum of {clients} clients does not fit in bits={bits} with bound={bound} and fraction_bits={fraction_bits}: "
            f"clients * bound * 2^fraction_bits must be between 1 and 2^{bits - 1} - 1; lower bound or fraction_bits"
        )
    return wanted
