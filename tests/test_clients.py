"""What clients keep: a row of those who were there, and of nobody else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl

SIZES = (3, 1, 2, 5, 4)
COUNTS = fl.ClientWork(  # each keeps how often it took part
    init=lambda params, key: jnp.int32(0),
    start=lambda shared, own, client: (),
    step=lambda shared, own, carry, batch: (carry, {}),
    finish=lambda shared, own, carry, client: (jnp.zeros_like(shared.params), own + 1, {}),
)


@pytest.mark.parametrize("engine", [fl.packed(2), fl.padded()], ids=["packed", "padded"])
def test_an_empty_slot_is_no_turn_whoever_it_names(engine):
    server, data = fl.optimizer_server(optax.sgd(1.0)), fl.FederatedData.from_clients([{"x": np.ones(n)} for n in SIZES])
    built = fl.federate(COUNTS, fl.aggregators.mean(), server, batches=fl.Batches(4), population=len(SIZES), engine=engine)
    state = built.init(jnp.zeros(2), jax.random.key(0))
    cohort = fl.sampling.cohort(fl.round_key(state), data.size, jnp.array([4, 2, 1, 2]), jnp.array([1.0, 1.0, 0.0, 0.0]))
    assert jax.jit(built.round)(state, data, cohort)[0].own.tolist() == [0, 0, 1, 0, 1]


def test_a_client_whose_message_does_not_count_keeps_what_it_had():
    """What the aggregator drops must not go on in what the client keeps: c = mean c_k would break."""
    spoils = COUNTS._replace(
        finish=lambda shared, own, carry, client: (jnp.where(client.id == 1, jnp.nan, 0.0) * shared.params, own + 1, {})
    )
    data = fl.FederatedData.from_clients([{"x": np.ones(n)} for n in SIZES])
    server = fl.optimizer_server(optax.sgd(1.0))
    built = fl.federate(spoils, fl.aggregators.median(), server, batches=fl.Batches(4), population=len(SIZES))
    state = built.init(jnp.zeros(2), jax.random.key(0))
    state, metrics = jax.jit(built.round)(state, data, fl.sampling.everyone()(fl.round_key(state), data.size, 0))
    assert state.own.tolist() == [1, 0, 1, 1, 1] and metrics["non_finite"] == 1


@pytest.mark.deep
def test_the_server_is_told_how_many_came_unless_that_is_private():
    def counted(aggregator):
        server = fl.Server(lambda params: params, lambda state: fl.Shared(state), lambda change, state, info: state + info.clients)
        built = fl.federate(COUNTS, aggregator, server, batches=fl.Batches(4), population=len(SIZES))
        state, data = built.init(jnp.zeros(2), jax.random.key(0)), fl.FederatedData.from_clients([{"x": np.ones(n)} for n in SIZES])
        cohort = fl.sampling.cohort(jax.random.key(0), data.size, jnp.arange(4), jnp.array([1.0, 0.0, 1.0, 1.0]))
        return jax.jit(built.round)(state, data, cohort)[0].server.tolist()

    assert counted(fl.aggregators.mean()) == [3.0, 3.0]
    assert np.isnan(counted(fl.aggregators.dp_mean(1.0, 0.0, 3))).all()


@pytest.mark.parametrize("engine", [fl.packed(2), fl.padded(), fl.sequential()], ids=["packed", "padded", "sequential"])
def test_passes_before_and_after_training_show_every_example_once_in_order(engine):
    """In the order of what each client was shown: x of the pass before, of its steps, of the pass after."""

    def step(shared, own, carry, batch):
        seen, place = carry
        x = jnp.where(batch.mask, batch.examples["x"], 0)
        told = jnp.sum(x * jnp.where(batch.learning, 1.0, 1000.0)) + 1e6 * batch.step + 1e4 * batch.epoch
        return (seen.at[place].set(told), place + 1), {}

    work = fl.ClientWork(
        lambda params, key: (), lambda shared, own, client: (jnp.zeros(12), 0), step, lambda shared, own, carry, client: (
            jnp.append(carry[0], client.steps), (), {}
        ),
    )  # fmt: skip
    data = fl.FederatedData.from_clients([{"x": np.array([1.0, 2, 3])}, {"x": np.array([5.0])}])
    stacked = fl.aggregators.from_stack(lambda messages, cohort: messages)
    server = fl.Server(lambda params: params, lambda state: fl.Shared(()), lambda stack, state, info: stack, params=lambda state: ())
    batches = fl.Batches(2, epochs=2, shuffle=False, before=1, after=2)
    built = fl.federate(work, stacked, server, batches=batches, population=2, engine=engine)
    state = built.init(jnp.zeros((2, 13)), jax.random.key(0))
    cohort = fl.sampling.stragglers(fl.sampling.everyone(), 1.0, 3)(jax.random.key(0), data.size, 0)
    cohort = cohort._replace(steps=jnp.array([3, 9]))  # the first is cut short, and makes its passes whole
    found = jax.jit(built.round)(state, data, cohort)[0].server
    e, s = 1e4, 1e6
    first = [3000, s + 3000, 3, s + 3, 2 * s + e + 3, 3000, s + 3000, 2 * s + e + 3000, 3 * s + e + 3000]
    second = [5000, 5, s + e + 5, 5000, s + e + 5000]
    assert found[0].tolist() == [*first, 0, 0, 0, 3] and found[1].tolist() == [*second, *[0] * 7, 2]


def test_a_loss_and_a_transformation_are_given_what_they_ask_for():
    """By hand: the loss adds the server's number and the client's, the optimizer takes sizes and epochs off."""

    def loss(params, batch, key, shared, own, client, round, epoch):
        return params * batch["x"] * (shared.extra + client.id + 10 * round + 100 * epoch)

    def update(gradient, state, params=None, *, shared, own, client, round, epoch, key, value):
        return -gradient - shared.extra * client.size - 5 * epoch, state

    seen = optax.GradientTransformationExtraArgs(lambda params: (), update)
    server = fl.Server(
        lambda params: params, lambda state: fl.Shared(state, extra=jnp.float32(2.0)), lambda change, state, info: state + change
    )
    batches = fl.Batches(None, epochs=2)
    built = fl.federate(fl.sgd_work(loss, seen), fl.aggregators.mean(), server, batches=batches, population=2)
    data = fl.FederatedData.from_clients([{"x": np.ones(1)}, {"x": np.full(3, 2.0)}])
    state, history = fl.simulate(built, data, jnp.float32(0.0), fl.sampling.everyone(), rounds=2, key=jax.random.key(0))
    steps = [
        -(x * (2 + k + 10 * t + 100 * e)) - 2 * n - 5 * e for t in range(2) for e in range(2) for k, (x, n) in enumerate([(1, 1), (2, 3)])
    ]
    assert float(state.server) == sum(steps) / 2
    assert history["downlink_bits"].tolist() == [2 * 64, 2 * 64]


def test_a_client_that_would_keep_something_else_is_refused():
    other = COUNTS._replace(finish=lambda shared, own, carry, client: (shared.params, (own, own), {}))
    server, data = fl.optimizer_server(optax.sgd(1.0)), fl.FederatedData.from_clients([{"x": np.ones(n)} for n in SIZES])
    built = fl.federate(other, fl.aggregators.mean(), server, batches=fl.Batches(4), population=len(SIZES))
    state = built.init(jnp.zeros(2), jax.random.key(0))
    with pytest.raises(ValueError, match="the client work's finish returns an own of .*, its init made .*: make them the same"):
        jax.eval_shape(built.round, state, data, fl.sampling.everyone()(fl.round_key(state), data.size, 0))
