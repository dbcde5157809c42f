"""The field of the arena: data, model, clients, rounds and draws that all contenders share, and one run on the field."""

import functools
import hashlib
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_lite import attacks, models
from fedjax_lite.aggregators.non_finite import is_finite
from fedjax_lite.base import Aggregator, Tree
from fedjax_lite.batches import Batches
from fedjax_lite.data import digits, partition
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.engine import padded
from fedjax_lite.federate import federate
from fedjax_lite.models.model import outputs_of
from fedjax_lite.sampling import everyone
from fedjax_lite.server import optimizer_server
from fedjax_lite.simulate import simulate
from fedjax_lite.work import sgd_work

FORMAT = 1  # of a stored table
CLIENTS, FACED = 20, (2, 4, 6)  # clients of a round, and how many of them are Byzantine: 10, 20 and 30 %
ROUNDS, SEEDS = 40, 5  # of a run, and of a cell
SKEWS = {"iid": ("iid", {}), "dirichlet": ("dirichlet", {"alpha": 0.3})}  # how the training examples are dealt
HIDDEN, RATE, BATCH, CLASSES = (32,), 0.5, 32, 10  # the network, a client's one step of SGD, and the digits


class Field(NamedTuple):
    """All that contenders share. Arrays are NumPy's, since those of jax would remember the mesh under which they were made."""

    rounds: int
    seeds: int
    train: FederatedData  # stacked: [skews * seeds, ...]
    test: Tree  # held-out examples, the same in every run
    byzantine: np.ndarray  # [seeds, 1 + faced, clients]: nobody, then FACED of them
    example: Tree


@functools.cache
def field(rounds: int = ROUNDS, seeds: int = SEEDS) -> Field:
    """Deal the digits for every skew and seed, and draw the Byzantine clients of each seed."""
    whole = digits(partition.iid(clients=1), seed=0)
    assert whole.test is not None
    examples = jax.tree.map(np.asarray, whole.train.examples)
    dealt = [_dealt(examples, skew, seed) for skew in SKEWS for seed in range(seeds)]
    largest = max(each.largest for each in dealt)
    alike = [FederatedData(each.examples, each.start, each.size, largest) for each in dealt]
    masks = [[attacks.byzantine(f, CLIENTS, seed=seed) for f in (0, *FACED)] for seed in range(seeds)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *alike)
    test, example = jax.tree.map(np.asarray, (whole.test.examples, whole.example))
    return Field(rounds, seeds, stacked, test, np.asarray(masks), example)


def message() -> Tree:
    """Return zeros in the shape of a client's message."""
    shapes = jax.eval_shape(_model().init, jax.random.key(0), {"x": jnp.zeros(64), "y": jnp.int32(0)})
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def train(
    field: Field,
    aggregator: Aggregator,
    skew: Any,
    draw: Any,
    attack: attacks.Attack | None = None,
    faced: Any = 0,
    uplink: optax.GradientTransformation | None = None,
) -> dict[str, jax.Array]:
    """Run all rounds; return the score of the final model, and the bits that a client's message takes.

    Args:
        field: of the contest.
        aggregator: the server's.
        skew, draw: rows of `SKEWS` and of the seeds; may be tracers, as `faced`.
        attack: of the Byzantine clients.
        faced: how many they are, as a row of (0, *FACED).
        uplink: of every client.

    Returns:
        "score", NaN for a model that is not finite: the accuracy on held-out examples, or where less the share of examples on which the
        attack's trigger fails; "bits".
    """
    data = jax.tree.map(lambda x: jnp.asarray(x)[skew * field.seeds + draw], field.train)
    test = jax.tree.map(jnp.asarray, field.test)
    model, loss_fn = _model(), models.supervised(_model())
    work: Any = sgd_work(loss_fn, optax.sgd(RATE))
    if attack is not None:
        work, aggregator = attacks.attacked(attack, jnp.asarray(field.byzantine)[draw, faced], work, aggregator)
    algorithm = federate(
        work,
        aggregator,
        optimizer_server(optax.sgd(1.0)),
        batches=Batches(BATCH, steps=1),
        population=CLIENTS,
        uplink=uplink,
        engine=padded(),
    )
    key = jax.random.key(draw)
    state, history = simulate(algorithm, data, model.init(key, field.example), everyone(), rounds=field.rounds, key=key)
    final = algorithm.params(state)
    finite = is_finite(jax.tree.map(lambda x: x[None], final), jnp.ones(1, bool))[0]
    score = jnp.where(finite, _score(model, final, test, attack), jnp.nan)
    return {"score": score, "bits": jnp.mean(history["uplink_bits"]) / CLIENTS}


def _score(model: models.Model, final: Tree, test: Tree, attack: attacks.Attack | None) -> jax.Array:
    """Return the share of right answers or, where less, of stamped examples for which the attackers do not get their class."""

    def answers(examples):
        return jnp.argmax(outputs_of(model, final, examples, None)[0], axis=-1)

    right = jnp.mean(answers(test) == test["y"])
    if attack is None or attack.trigger is None:
        return right
    shown, wanted, tells = attack.trigger(test)
    fooled = jnp.sum((answers(shown) == wanted) & tells) / jnp.maximum(jnp.sum(tells), 1)
    return jnp.minimum(right, 1 - fooled)


def facts(rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the settings of the field as plain data."""
    kinds = ", ".join(name + "".join(f" {key}={value}" for key, value in more.items()) for name, more in SKEWS.values())
    return {
        "data": "bundled digits",
        "clients": CLIENTS,
        "byzantine": "0, " + ", ".join(f"{f} ({100 * f // CLIENTS} %)" for f in FACED),
        "partitions": kinds,
        "model": f"mlp of {', '.join(map(str, HIDDEN))} units",
        "local work": f"one step of SGD, rate {RATE}, {BATCH} examples",
        "rounds": rounds,
    }


def fingerprint(rounds: int = ROUNDS) -> str:
    """Return 16 hex digits that stand for the field and the format of its table."""
    sums = [float(np.asarray(leaf, np.float64).sum()) for leaf in jax.tree.leaves(digits(partition.iid(clients=1), seed=0))]
    text = json.dumps([FORMAT, CLIENTS, FACED, rounds, SKEWS, HIDDEN, RATE, BATCH, CLASSES, sums])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _dealt(examples: Tree, skew: str, seed: int) -> FederatedData:
    """Deal the training examples of one skew and seed."""
    name, more = SKEWS[skew]
    owners = np.zeros(len(examples["y"]), np.int64)
    for client, rows in enumerate(getattr(partition, name)(clients=CLIENTS, **more)(np.random.default_rng(seed), examples["y"])):
        owners[rows] = client
    return FederatedData.from_arrays(examples, owners, population=CLIENTS)


@functools.cache
def _model() -> models.Model:
    """Make the model of the field."""
    return models.mlp(HIDDEN, classes=CLASSES)
