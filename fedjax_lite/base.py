"""The protocol: named tuples of pure functions and arrays. Everything else is an instance of them.

Shape words, used in every docstring: `[population]` all clients, `[clients]` the clients of one round,
`[lanes]` rows of the stacked parameter array, `[steps]`, `[batch]`, `[examples]`, `[rounds]`.
A pytree with leaves `[clients, ...]` is called a stack.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Tree = Any  # any pytree of arrays
Key = Any  # a jax random key
Number = int | float | np.integer | np.floating | Array  # a hyperparameter; a tracer inside a vmapped study
Whole = int | SupportsIndex  # a count that sets a shape: Python's, NumPy's or JAX's, no tracer

NO_LIMIT = np.int32(2**31 - 1)  # `Client.steps` of a client that no sampler cut short


class Place(NamedTuple):
    """Where a client's examples and rows lie; for engines and runners alone."""

    start: Int[Array, "*clients"] | None = None  # the row of its first example; None: data.start[id]
    row: Int[Array, "*clients"] | None = None  # its row of the state's own and uplink; None: its id
    device: Int[Array, "*clients"] | None = None  # the place of the device that has its examples; None: all devices have them


class Client(NamedTuple):
    """One client's facts; stacked along axis 0 it is the cohort of a round."""

    id: Int[Array, "*clients"]  # its row in the population
    key: Key  # fold_in(round key, id)
    size: Int[Array, "*clients"]  # how many examples it holds
    steps: Int[Array, "*clients"]  # how many local steps it takes; a sampler may lower it
    weight: Float[Array, "*clients"]  # 0 marks an empty slot
    age: Int[Array, "*clients"] | None = None  # how many rounds old the model is that it starts from; None: it is this round's
    place: Place = Place()
    sums: dict[str, Float[Array, "*clients"]] = {}  # metrics of the cohort, which add over its slots
    tier: Int[Array, "*clients"] | None = None  # which clients of like speed it belongs to, 0 the fastest; None: there are no tiers


class Batch(NamedTuple):
    """One client's batch for one local step."""

    examples: Tree  # [batch, ...]
    mask: Bool[Array, " batch"]  # False where a short last batch is filled up
    step: Int[Array, ""]  # local step within the round
    epoch: Int[Array, ""]  # local epoch within the round
    round: Int[Array, ""]
    client: Client | None = None  # the client that has the examples
    row: Int[Array, " batch"] | None = None  # which of the client's examples these are, from 0
    learning: Bool[Array, ""] | bool = True  # False in the passes over the client's examples before and after training


class Shared(NamedTuple):
    """A server's broadcast."""

    params: Tree
    rate: Number = 1.0  # factor on every client's learning rate
    public: Tree = None  # not sent: examples that all clients have, or models of which each client is sent one in place of `params`
    extra: Tree = None  # further values that are sent, for instance soft labels or a control variate
    each: Tree = None  # [population, ...]: each client is sent its own row


class Mean(NamedTuple):
    """A metric on its way: sums and counts add over clients and are divided last."""

    total: Float[Array, "*clients"]
    count: Float[Array, "*clients"]  # type: ignore[assignment]  # hides tuple.count, which a metric has no use for

    def value(self) -> Array:
        """total / count; NaN where count is 0, and infinity where total / count is NaN, so that the two cases differ."""
        value = self.total / jnp.where(self.count > 0, self.count, 1)
        return jnp.where(self.count > 0, jnp.where(jnp.isnan(value), jnp.inf, value), jnp.nan)

    def overall(self) -> Array:
        """`value()` over all clients together: the mean over examples, not over clients."""
        return Mean(self.total.sum(), self.count.sum()).value()


class Info(NamedTuple):
    """Facts about a round that the server gets beside the aggregate."""

    round: Int[Array, ""] | int
    key: Key
    metrics: dict[str, Float[Array, ""]]  # the round's metrics, for instance "loss"; empty where clients' metrics are private
    clients: Float[Array, ""] | float = float("nan")  # how many sent a finite message; NaN where that is private
    cohort: Client | None = None  # who was in the round's slots; None where that is private


class ClientWork(NamedTuple):
    """Local training of ONE client; the clients axis does not exist here. Metrics add over steps and clients."""

    init: Callable[[Tree, Key], Tree]  # params, key -> own
    start: Callable[[Any, Tree, Client], Tree]  # shared, own, client -> carry
    step: Callable[[Any, Tree, Tree, Batch], tuple[Tree, dict[str, Mean]]]  # shared, own, carry, batch -> carry, metrics
    finish: Callable[[Any, Tree, Tree, Client], tuple[Tree, Tree, dict[str, Mean]]]  # shared, own, carry, client -> message, own, metrics
    personal: bool = False  # True: what it keeps is a model of the client's own, which a private aggregator allows for where it can


class Hidden(NamedTuple):
    """Marks a client's own or uplink row whose work or uplink hides the client's data, by noise, in its messages."""

    kept: Tree = ()


class Mechanism(NamedTuple):
    """An aggregator's privacy in an accountant's terms: noise on a sum that one client moves by at most a bounded norm."""

    noise_multiplier: Number  # z, the noise's standard deviation over the norm by which adding one client moves the sum
    divergence: Callable[[float], float] | None = None  # order a -> Renyi divergence of one round, where its noise is not Gaussian
    # For noise correlated over rounds: a client's most participations, fewest rounds between two -> how far it moves all, in units of one.
    sensitivity: Callable[[int, int], float] | None = None
    shares: Number = 0  # clients that must take part for the noise to be whole, where each client draws a share
    rounds: int | None = None  # the number of rounds that the noise is made for; None: every number
    provided: str = ""  # a further condition of the guarantee, in words
    personal: bool = False  # True: clients keep models of their own, so a client's draws in a round must tell nothing of other clients'


class Aggregator(NamedTuple):
    """The cohort's messages reduced to one; slots of weight 0 must not matter, whatever they hold."""

    init: Callable[[Tree], Tree]  # message -> state
    collect: Callable[[Tree, Client, Tree], Tree]  # stack of messages, cohort, state -> part; any group of clients
    finish: Callable[[Tree, Tree, Key], tuple[Tree, Tree, dict[str, Array]]]  # part, state, key -> aggregate, state, metrics
    additive: bool  # True: parts of groups add leaf by leaf; False: they concatenate on axis 0
    sums_only: bool = False  # True: the server learns the sum alone (secure aggregation), so nothing may look at single messages
    privacy: Mechanism | None = None  # its guarantee; a round without clients then counts too, or it would show
    bits: Callable[[Tree], Number] | None = None  # message -> bits of an upload, where its arithmetic decides; None: the uplink counts
    weighs: bool = False  # True: clients do not all count the same, for instance by their numbers of examples


class Server(NamedTuple):
    """The global model and how an aggregate changes it."""

    init: Callable[[Tree], Tree]  # params -> state
    broadcast: Callable[[Tree], Any]  # state -> shared
    update: Callable[[Tree, Tree, Info], Tree]  # aggregate, state, info -> state
    uses_metrics: bool = False  # True: metrics that clients report change the model, beside the aggregate
    params: Callable[[Tree], Tree] | None = None  # state -> the global model, where the broadcast model is another
    metrics: Callable[[Tree], dict[str, Array]] = lambda state: {}  # state after an update -> metrics beside the round's


class State(NamedTuple):
    """All that the next round needs, and nothing else: saving it and loading it is resuming."""

    round: Int[Array, ""]
    key: Key
    server: Tree
    aggregator: Tree
    own: Tree  # [population, ...]
    uplink: Tree  # [population, ...]
    sampling: Tree = ()  # the memory of a sampler that has one


class Layout(NamedTuple):
    """Functions by which a runner places an algorithm's arrays and estimates the cost of a round."""

    steps: Callable[[Client, Any], Client]  # cohort, round -> cohort with the steps that each client takes
    rows: Callable[[Tree, Key, Any], tuple[Tree, Tree]] | None  # params, key, ids -> first own and uplink rows
    stacks: Callable[[State, Any, Client], dict[str, Tree]]  # State, data, cohort -> on each device: "lanes", "messages"
    demand: Callable[[State, Client], Any] | None = None  # State, cohort -> `engine.pace.Demand`: what this round asks of each client
    queued: bool = False  # True: clients pass through lanes one after another, and "lanes" of stacks are as many as there are


class Algorithm(NamedTuple):
    """A whole federated method: a state and a round."""

    init: Callable[[Tree, Key], State]  # params, key -> State
    round: Callable[[State, Any, Client], tuple[State, dict[str, Array]]]  # State, data, cohort -> State, metrics
    params: Callable[[State], Tree]  # State -> params, the global model
    layout: Layout | None = None
    privacy: Mechanism | None = None  # the aggregator's
    models: Callable[..., Tree] | None = None  # State, ids -> the models of these clients, by default of all, where each has its own
    loss_fn: Callable[..., Any] | None = None  # evaluates `params`, where the loss of the clients' model does not
    asynchrony: Any = None  # `engine.pace.Asynchrony`: how uploads are taken in; None: the server waits for the whole cohort


def round_key(state: State) -> Key:
    """Return the key of the round about to run: fold_in(root key, round).

    >>> bool(round_key(State(jnp.int32(2), jax.random.key(7), (), (), (), ())) == jax.random.fold_in(jax.random.key(7), 2))
    True
    """
    return jax.random.fold_in(state.key, state.round)
