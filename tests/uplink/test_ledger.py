"""Bits counted by hand: through wrappers, and of the clients that came."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from compressed import bits, lognormal, message, once, update
from contract.works import federate
from problems import simulate, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import uplink
from fedjax_lite.ledger import sent
from fedjax_lite.uplink.sparse import _bits, _kept


def test_bits_through_chains_and_wrappers():
    u = message()  # b: 5 coordinates, w: 24
    kernels = {"b": False, "w": True}
    assert bits(optax.clip_by_global_norm(1.0), u) == (29 * 32, 0)
    assert bits(optax.chain(optax.clip(1.0), uplink.sign(), optax.scale(2.0)), u) == (29, 0)
    assert bits(uplink.error_feedback(optax.chain(uplink.top_k(0.1), optax.clip(1.0))), u) == (3 * 32, 3 * 5)
    assert bits(optax.chain(uplink.top_k(0.1), uplink.qsgd(1)), u) == (29 * 2, 32)  # the last is what travels
    assert bits(optax.masked(uplink.sign(), kernels), u) == (24 + 5 * 32, 0)
    assert bits(optax.masked(uplink.sign(), False), u) == (29 * 32, 0)
    assert bits(optax.chain(uplink.sign(), optax.masked(uplink.qsgd(1), kernels)), u) == (24 * 2 + 5, 32)
    both = optax.partition({"few": uplink.top_k(0.5), "many": uplink.rotate(uplink.uniform(2))}, {"b": "few", "w": "many"})
    assert bits(both, u) == (2 * 32 + 32, 2 * 3 + 64)
    assert bits(optax.masked(uplink.drive(), kernels), message(dtype=jnp.bfloat16)) == (32 + 5 * 16, 32)
    assert bits(uplink.rotate(optax.masked(uplink.sign(), kernels)), u) == (32 + 5 * 32, 0)
    assert bits(optax.flatten(uplink.qsgd(1)), u) == (29 * 2, 32)
    assert bits(optax.chain(optax.flatten(uplink.qsgd(1)), optax.flatten(uplink.sign())), u) == (29, 0)


def masked(transform, *names, of):
    return optax.masked(transform, {name: name in names for name in of})


WHOLE = uplink.compressor("whole", lambda message, draw: (message, 500, 7), draws=False)
LAST = {  # transforms, sizes of leaves, and by hand the bits of what of each leaf is sent last
    "masked chain": (masked(optax.chain(uplink.top_k(0.1), uplink.qsgd(7)), "w", of="wb"), dict(w=10, b=100), 10 * 4 + 32 + 100 * 32),
    "masks that overlap": (
        optax.chain(masked(uplink.top_k(0.01), "a", of="abc"), masked(uplink.qsgd(7), "a", "b", of="abc")),
        dict(a=100, b=100, c=100),
        200 * 4 + 32 + 100 * 32,
    ),
    "by leaf": (optax.chain(uplink.uniform(4), masked(uplink.sign(), "w", of="wc")), dict(w=60, c=100), 60 + 100 * 2 + 64),
    "a norm still needed": (optax.chain(uplink.qsgd(7), masked(uplink.sign(), "w", of="wc")), dict(w=60, c=100), 60 + 100 * 4 + 32),
    "rotated": (optax.chain(uplink.rotate(uplink.qsgd(7)), masked(uplink.sign(), "w", of="wc")), dict(w=60, c=100), 60 + 128 * 4 + 32),
    "of equal ones the first": (
        optax.chain(uplink.top_k(0.5), masked(uplink.sign(), "w", of="wc")),
        dict(c=100, w=60),
        60 + 80 * (32 + 8),
    ),
    "a number for all leaves": (optax.chain(WHOLE, masked(uplink.sign(), "w", of="wc")), dict(w=60, c=100), 60 + 507),
    "a number for none": (optax.chain(WHOLE, uplink.sign()), dict(w=60, c=100), 160),
}


@functools.cache
def counted():
    def cost(transform, u):
        decoded, state = update(transform, u)
        return sum(sent(state, decoded))

    messages = {name: {leaf: np.ones(size, np.float32) for leaf, size in sizes.items()} for name, (_, sizes, _) in LAST.items()}
    return jax.jit(lambda messages: {name: cost(LAST[name][0], u) for name, u in messages.items()})(messages)


@pytest.mark.parametrize("case", LAST)
def test_of_what_several_compressors_are_given_the_last_counts_leaf_by_leaf(case):
    assert counted()[case] == LAST[case][2]


def test_bits_past_those_of_an_int32():
    kept = np.ones(70_000_000, bool)
    assert float(jax.jit(lambda keep: _bits([jnp.zeros(keep.shape)], [keep])[0])(kept)) == 32 * 70_000_000
    assert int(_kept(1.0, 2**24 + 1)) == int(_kept(jnp.float32(1.0), 2**24 + 1)) == 2**24 + 1


def test_entropy():
    rng = np.random.default_rng(0)
    symbols = rng.choice(4, 5000, p=[0.7, 0.1, 0.1, 0.1])
    frequencies = np.bincount(symbols) / 5000
    assert uplink.entropy_bits(symbols) == pytest.approx(5000 * scipy.stats.entropy(frequencies, base=2))
    assert uplink.entropy_bits(np.zeros(7)) == 0
    decoded, state = once(uplink.qsgd(4), lognormal())
    assert uplink.entropy_bits(decoded) < 0.5 * float(state.payload)  # most are 0


def averaged(transform, engine=None):
    return federate(aggregator=fl.aggregators.mean(), uplink=transform, engine=engine, batches=fl.Batches(4, shuffle=False))


ENGINES = {"packed": fl.packed(2), "padded": fl.padded(), "sequential": fl.sequential()}
SENT = {
    "as it is": (None, 18 * 32, 0),
    "top_k": (uplink.error_feedback(uplink.top_k(0.25)), 4 * 32, 4 * 5),
    "drive": (uplink.drive(), 32, 32),
}
DEEP = ("packed", "top_k"), ("padded", "drive"), ("sequential", "as it is")


@pytest.mark.parametrize("engine, what", [("sequential", "top_k"), *(pytest.param(*pair, marks=pytest.mark.deep) for pair in DEEP)])
def test_a_round_adds_the_bits_of_those_who_came(engine, what):
    data = softmax_data((5, 1, 12, 3, 8, 0, 7), empty=True)
    transform, payload, side = SENT[what]
    algorithm = averaged(transform, ENGINES[engine])
    _, history = simulate(algorithm, data, softmax_params(), fl.sampling.poisson(0.4, capacity=6), 6, jax.random.key(0))
    clients = np.asarray(history["clients"])
    assert len(set(clients)) > 2
    np.testing.assert_array_equal(history["uplink_bits"], clients * (payload + side))
    np.testing.assert_array_equal(history["uplink_side_bits"], clients * side)
    np.testing.assert_array_equal(history["downlink_bits"], clients * 18 * 32)


@pytest.mark.deep
def test_own_bits_of_traced_shares_add_up_and_residuals_stay_with_their_clients():
    data = softmax_data()

    def experiment(share):
        state, history = fl.simulate(
            averaged(uplink.error_feedback(uplink.top_k(share))),
            data,
            softmax_params(),
            fl.sampling.uniform(3),
            rounds=1,
            key=jax.random.key(0),
        )
        return state.uplink.residual, history["uplink_bits"]

    residuals, totals = jax.jit(jax.vmap(experiment))(jnp.array([0.1, 0.5, 1.0]))
    np.testing.assert_array_equal(totals[:, 0], 3 * 37 * np.array([2, 9, 18]))
    held = np.abs(residuals).sum(axis=(2, 3)) > 0
    assert held.sum(axis=1).tolist() == [3, 3, 0]


def test_a_message_that_is_a_smaller_tree_costs_its_own_bits():
    """Adapters, logits: what is counted up is the message, and down the parameters."""
    work = fl.sgd_work(softmax_loss, optax.sgd(0.1))

    def finish(shared, own, carry, client):
        message, own, metrics = work.finish(shared, own, carry, client)
        return {"first": message[0], "half": message[1].astype(jnp.bfloat16)}, own, metrics

    server = fl.optimizer_server(optax.sgd(1.0))
    algorithm = federate(
        work._replace(finish=finish),
        fl.aggregators.mean(),
        server._replace(update=lambda aggregate, state, info: state),
        batches=fl.Batches(4, shuffle=False),
        engine=fl.sequential(),
    )
    _, history = simulate(algorithm, softmax_data(), softmax_params(), fl.sampling.uniform(2), 1, jax.random.key(0))
    assert history["uplink_bits"][0] == 2 * (3 * 32 + 3 * 16) and history["downlink_bits"][0] == 2 * 18 * 32
