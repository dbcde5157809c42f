"""What a run says of each client when it has ended: a row a client, of the global model, the client's own, and after fine-tuning."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Key, Mean, State, Tree
from fedjax_lite.data.arrays import check_alike
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.data.train_test import TrainTest
from fedjax_lite.engine.placement import everywhere
from fedjax_lite.evaluation import FineTune, evaluate_each, fine_tuned, finetune_key, received, summarize
from fedjax_lite.guarantees import hidden
from fedjax_lite.metrics import FINETUNED, NEW, OWN, SPREAD, prefix_of
from fedjax_lite.models.loss_fn import of_one_model
from fedjax_lite.runner.client_table import columns_of, facts_of, stacked
from fedjax_lite.runner.compiled import Compiled
from fedjax_lite.runner.fit import Setup
from fedjax_lite.runner.host_rows import Rows, Touched
from fedjax_lite.runner.records import plain
from fedjax_lite.runner.segments import first_rows
from fedjax_lite.runner.stream import evaluated
from fedjax_lite.tree import zero_where_not

__all__ = ["Clients", "Seen", "check_clients", "clients_of"]

CHUNK = 256  # clients whose models are there at once, and whose examples are, where they are streamed
MOST_CLIENTS = 1_000_000  # rows of a table; of a larger population there is none


class Seen(NamedTuple):
    """What segments have seen of the clients."""

    drawn: np.ndarray  # int [population], for how many rounds each was drawn
    sums: Mapping[str, Mean] = {}  # the last evaluation, leaves [population]


class Clients(NamedTuple):
    """What is known of each client when a run has ended."""

    table: dict[str, np.ndarray]  # a column a name, one value a client
    beside: dict[str, Any]  # entries of the summary: evaluations of other models than the global one, and of new clients

    @property
    def evaluated(self) -> dict[str, float | None]:
        """The values in `beside`, by the names of their metrics."""
        return {name: x for part in self.beside.values() for name, x in part.items() if not isinstance(x, dict)}


def check_clients(setup: Setup, finetune: Any, new: Any) -> None:
    """Refuse what cannot be fine-tuned, and new clients who are no clients such as the others.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if finetune is None and new is None:
        return
    name, wrong = ("finetune", "a fl.FineTune") if finetune is not None else ("new_clients", "a fl.TrainTest")
    if not isinstance(finetune, FineTune | None) or not isinstance(new, TrainTest | None):
        raise TypeError(f"{name} must be {wrong} or None, got {(new if finetune is None else finetune)!r}")
    if setup.loss_fn is None:
        raise ValueError(f"{name}: clients are evaluated by loss_fn, and there is none: give loss_fn")
    if finetune is not None and (families := getattr(setup.loss_fn, "families", 1)) > 1:
        raise ValueError(f"finetune: there are models of {families} architectures, of which no client has all: leave finetune out")
    if finetune is not None and setup.held_out.population != setup.data.population:
        raise ValueError(
            "finetune: each client is evaluated on examples of its own, and the test part is of no client: hold out examples of each, for "
            "instance with test=0.2 in place of a central test set"
        )
    if finetune is not None and new is not None and getattr(setup.loss_fn, "of_whole_client", False):
        raise ValueError("new_clients: loss_fn has class_counts of the clients that train, and new ones have none: leave finetune out")
    for part in (new.train, new.test) if new is not None else ():
        if not isinstance(part, FederatedData | None):
            raise TypeError(f"new_clients: take data in memory, got a {type(part).__name__}")
        if part is not None:
            check_alike(setup.data, part)
    if new is not None and (new.test is None) != (setup.test is None):
        raise ValueError("new_clients: hold out examples of them as of the others: of both, or of neither")
    if new is not None and new.test is not None and new.test.population != new.train.population:
        raise ValueError(f"new_clients: train has {new.train.population} clients, test {new.test.population}: give both of the same ones")
    if finetune is not None:  # what is wrong with it would show when all rounds are done
        data = setup.data.shapes() if isinstance(setup.data, Store) else setup.data
        jax.eval_shape(partial(_first_tuned, setup, finetune), setup.params, setup.key, data)


def _first_tuned(setup: Setup, finetune: FineTune, params: Tree, key: Key, data: FederatedData) -> Tree:
    """Fine-tune the model that client 0 has before the first round."""
    assert setup.loss_fn is not None
    models = received(setup.algorithm, setup.loss_fn, setup.algorithm.init(params, key))
    return fine_tuned(of_one_model(setup.loss_fn), models, data, finetune, key)(jnp.int32(0))


def clients_of(
    setup: Setup, shapes: State, state: State, seen: Seen, record: Mapping[str, Any], finetune: FineTune | None, new: TrainTest | None
) -> Clients:
    """Evaluate what the last segment has not, and put all that is known of each client into one table; of a private run nothing is kept.

    Args:
        setup, shapes, state: what the run started from, the shapes of its state, and the last one.
        seen: what segments have seen of the clients.
        record: of the last round, with what was evaluated after it.
        finetune: how clients fine-tune the global model; None: they don't.
        new: clients that never took part.
    """
    prefix, sums = prefix_of(setup.test), _evaluate_global(setup, state, seen)
    known = sums | _evaluate_others(setup, state, sums, finetune) if sums else {}
    later = {name: value for name, value in known.items() if prefix + name not in record}
    of_new = {} if new is None else _evaluate_new(setup, state, finetune, new)
    beside = {"other_models": _summary(known, later, prefix)} if later else {}
    named = {NEW + name: value for name, value in of_new.items()}
    beside |= {"new_clients": _summary(named, named, prefix)} if of_new else {}
    if setup.data.population > MOST_CLIENTS or setup.algorithm.privacy is not None or hidden(shapes.own, shapes.uplink):
        return Clients({}, beside)  # rows of single clients have no place beside a guarantee
    columns = facts_of(setup.data, setup.held_out if known else None, seen.drawn, 0) | columns_of(known, prefix)
    if new is None:
        return Clients(columns, beside)
    theirs = facts_of(new.train, new.test or new.train, np.zeros(new.population, int), 1) | columns_of(of_new, prefix)
    theirs["id"] = theirs["id"] + setup.data.population
    return Clients(stacked(columns, theirs), beside)


def _evaluate_global(setup: Setup, state: State, seen: Seen) -> dict[str, Mean]:
    """Return the evaluation that was seen last, client by client; none where no client holds examples to be evaluated on."""
    if setup.loss_fn is None or setup.held_out.population != setup.data.population:
        return {}
    if seen.sums:
        return dict(seen.sums)
    return jax.device_get(evaluated(setup.loss_fn, setup.algorithm.params(state), setup.held_out))  # no round was left to run


def _evaluate_others(setup: Setup, state: State, known: Mapping[str, Mean], finetune: FineTune | None) -> dict[str, Mean]:
    """Evaluate the clients' own models, where a segment could not, and the models after fine-tuning."""
    algorithm, found = setup.algorithm, dict[str, Mean]()
    own_left = algorithm.models is not None and not any(name.startswith(OWN) for name in known)
    if not own_left and finetune is None:
        return found
    rows = _rows_of(setup, state) if algorithm.models is not None else None
    key, own, tuned = finetune_key(setup.key), [], []
    for ids, real in _chunks(setup.data.population):
        here = state._replace(own=rows.take(ids)[0] if rows else () if algorithm.models is None else state.own, uplink=())
        places, held_out = (np.arange(len(ids), dtype=np.int32) if rows else ids), _share(setup.held_out, ids)
        if own_left:
            trained = np.asarray(setup.data.size)[ids] > 0
            own.append(_real(_own(algorithm, setup.loss_fn, here, places, trained, held_out), real))
        if finetune is not None:
            train = _share(setup.data, ids)
            tuned.append(_real(_tuned(algorithm, setup.loss_fn, finetune, here, places, key, ids, train, held_out), real))
    for prefix, parts in ((OWN, own), (FINETUNED, tuned)):
        found |= {prefix + name: value for name, value in _joined(parts).items()} if parts else {}
    return found


def _evaluate_new(setup: Setup, state: State, finetune: FineTune | None, new: TrainTest) -> dict[str, Mean]:
    """Evaluate the global model on clients that never took part, before and after fine-tuning; where there are several, before."""
    new, here = everywhere(new), state._replace(own=(), uplink=())
    held_out = new.train if new.test is None else new.test
    found = dict(jax.device_get(evaluated(setup.loss_fn, setup.algorithm.params(state), held_out)))
    if finetune is None or of_one_model(setup.loss_fn) is not setup.loss_fn:
        return found
    parts = []
    for ids, real in _chunks(new.population):
        given = here, ids, finetune_key(setup.key), setup.data.population + ids, _share(new.train, ids), _share(held_out, ids)
        parts.append(_real(_tuned(setup.algorithm, setup.loss_fn, finetune, *given), real))
    return found | {FINETUNED + name: value for name, value in _joined(parts).items()}


@partial(Compiled, parts=2)
def _own(algorithm, loss_fn, state, places, trained, held_out) -> dict[str, Mean]:
    """Evaluate the own model of each client of a chunk that has examples to train on."""
    return zero_where_not(trained, evaluate_each(of_one_model(loss_fn), lambda k: algorithm.models(state, places[k]), held_out))


@partial(Compiled, parts=3)
def _tuned(algorithm, loss_fn, how, state, places, key, ids, train, held_out) -> dict[str, Mean]:
    """Let each client of a chunk fine-tune the model that it receives, and evaluate it."""
    models, of_one = received(algorithm, loss_fn, state), of_one_model(loss_fn)
    each = (lambda k: models(places[k])) if callable(models) else models
    return evaluate_each(of_one, fine_tuned(of_one, each, train, how, key, ids), held_out)


def _rows_of(setup: Setup, state: State) -> Rows | None:
    """Return the table of what clients keep, where it is in host memory."""
    if not isinstance(state.own, Touched):
        return None
    return Rows(state, setup.data.population, partial(first_rows(setup.algorithm, setup.params), setup.key))


def _chunks(population: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the clients in chunks of one length, the last filled up with its last client, and how many are real."""
    length = min(population, CHUNK)
    for first in range(0, population, length):
        ids = np.arange(first, first + length, dtype=np.int32)
        yield np.minimum(ids, population - 1), min(length, population - first)


def _share(data: FederatedData | Store, ids: np.ndarray) -> FederatedData:
    """Return the examples of some clients, in arrays whose shapes do not depend on the clients."""
    if isinstance(data, FederatedData):
        return replace(data, start=data.start[ids], size=data.size[ids])
    most = max(int(data.held(other).sum()) for other, _ in _chunks(data.population))
    size = data.held(ids)
    start = np.cumsum(size) - size
    return everywhere(FederatedData(data.read(ids, most), start.astype(np.int32), size.astype(np.int32), data.largest))


def _real(sums: Mapping[str, Mean], real: int) -> dict[str, Mean]:
    """Fetch a chunk's sums, those of its real clients."""
    return jax.tree.map(lambda x: np.asarray(x)[:real], dict(sums))


def _joined(parts: list[dict[str, Mean]]) -> dict[str, Mean]:
    """Join the sums of chunks."""
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _summary(sums: Mapping[str, Mean], names: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Summarize those of the metrics that have these names; the others are there to compare with."""
    whole = summarize(dict(sums), prefix)
    spread = whole.get(prefix + SPREAD)
    mine = {prefix + name: whole[prefix + name] for name in names}
    if isinstance(spread, dict) and (kept := {name: each for name, each in spread.items() if name in names}):
        mine[prefix + SPREAD] = kept
    return plain(mine)
