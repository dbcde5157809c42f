"""Checks of the properties that the contract requires of an algorithm, a function for each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Client, State, round_key
from fedjax_lite.checks.aggregator_contract import kind
from fedjax_lite.checks.answers import Verdict
from fedjax_lite.checks.trial import FEW, Trial, agree, cohort_of, named
from fedjax_lite.engine.placement import everywhere, mesh_of


def order(tried: Trial) -> Verdict:
    """Permute the cohort's slots: nothing may change."""
    expected = tried.round(tried.state, tried.ids)
    orders = (tried.ids[::-1], np.roll(tried.ids, 1))
    return agree((tried.round(tried.state, ids), expected) for ids in orders)


def empty_slots(tried: Trial) -> Verdict:
    """Compare a few clients alone with the same clients among empty slots.

    An empty slot has weight 0, an id outside the population, or a client without examples.
    """
    alone = tried.round(tried.state, tried.ids[:FEW], engine="sequential")
    slots, pairs = len(tried.ids), []
    empty = [(tried.ids[-1], 0.0), (tried.data.population, 1.0)] + ([] if tried.nobody is None else [(tried.nobody, 1.0)])
    for places in (np.arange(FEW), np.arange(slots)[-FEW:], np.arange(slots)[::-1][:FEW]):
        for fill, weight in empty:
            ids, weights = np.full(slots, fill), np.full(slots, weight)
            ids[places], weights[places] = tried.ids[:FEW], 1.0
            pairs.append((tried.round(tried.state, ids, weights), alone))
    return agree(pairs)


def empty_cohort(tried: Trial) -> Verdict:
    """Empty every slot: no bit of the state may change but the number of the round."""
    after, metrics = tried.round(tried.state, tried.ids, np.zeros(len(tried.ids)))
    if float(metrics["clients"]) or int(after.round) != int(tried.state.round) + 1:
        return "no", f"{float(metrics['clients']):g} clients are counted, round {int(after.round)} follows on {int(tried.state.round)}"
    if tried.built.privacy is not None:
        return "not applicable", "it is private, and such a round must look like any other"
    before = named(tried.state)
    pairs = [(name, x, before[name]) for name, x in named(after).items() if name != ".round"]
    changed = [name for name, x, y in pairs if not np.array_equal(x, y, equal_nan=x.dtype.kind == "f")]
    if changed or float(metrics["update_norm"]):
        return "no", f"it changes {', '.join(changed) or 'the model'}"
    return "yes", "no bit changes"


def engines(tried: Trial) -> Verdict:
    """Compare packed lanes, the padded scan and the plain loop over two rounds with different, overlapping cohorts."""
    if not tried.engines:
        return "not applicable", "needs a function of the engine that makes the algorithm"
    weight = np.arange(len(tried.ids)) < FEW
    first, after = tried.ids, np.roll(tried.ids, 1 - FEW)

    def two_rounds(engine):
        slots, weights = (FEW, None) if engine == "sequential" else (None, weight)
        state, first_metrics = tried.round(tried.state, first[:slots], weights, engine)
        return first_metrics, *tried.round(state, after[:slots], weights, engine)

    expected = two_rounds("sequential")
    return agree((two_rounds(engine), expected) for engine in ("packed", "padded"))


def one_program(tried: Trial) -> Verdict:
    """Check that another cohort, a later round and empty slots run the program of the first round."""
    state = tried.state
    for weight in (1, np.arange(len(tried.ids)) % 2):
        state, _ = tried.round(state, tried.ids[::-1], np.ones(len(tried.ids)) * weight)
    times = len(tried.traced)
    return ("yes" if times == 1 else "no"), f"traced {times} time{'s' if times > 1 else ''}"


def structure(tried: Trial) -> Verdict:
    """Compare structure, shapes, dtypes and weak types of the state before and after a round."""
    before = jax.eval_shape(lambda: tried.state)
    cohort = _cohort(tried, tried.state, tried.data.size, jnp.asarray(tried.ids))
    after = jax.eval_shape(tried.built.round, tried.state, tried.data, cohort)[0]
    if jax.tree.structure(after) != jax.tree.structure(before):  # type: ignore[operator]
        return "no", f"{jax.tree.structure(after)} instead of {jax.tree.structure(before)}"
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(before)):
        if kind(a) != kind(b):
            return "no", f"{jax.tree_util.keystr(path)} is {kind(a)} after a round, {kind(b)} before"
    return "yes", f"{len(jax.tree.leaves(before))} arrays"


def metrics(tried: Trial) -> Verdict:
    """Check that the metrics are float scalars."""
    for name, x in tried.round(tried.state, tried.ids)[1].items():
        if x.shape != () or not jnp.issubdtype(x.dtype, jnp.floating):
            return "no", f"{name!r} is {kind(x)}"
    return "yes", "all of them"


def eager(tried: Trial) -> Verdict:
    """Compare the compiled round with the round run operation by operation."""
    cohort = _cohort(tried, tried.state, tried.data.size, jnp.asarray(tried.ids))
    return agree([(tried.round(tried.state, tried.ids), tried.built.round(tried.state, tried.data, cohort))])


def mapped(tried: Trial) -> Verdict:
    """Compare two vmapped runs, with different keys and values of the hyperparameter, with each run alone."""
    together, (run, _) = tried.runs()(tried.keys, tried.values), tried.run()
    return agree((jax.tree.map(lambda x, i=i: x[i], together), run(tried.keys[i], tried.values[i])) for i in range(2))


def pieces(tried: Trial) -> Verdict:
    """Compare two rounds in one program with two calls of the round, the second from the first's state."""
    state, history = tried.run()[0](tried.keys[0], tried.values[0])
    after_first, first_metrics = tried.round(tried.state, tried.ids)
    after_second, second_metrics = tried.round(after_first, np.roll(tried.ids, 1))
    return agree([(state, after_second), (history, jax.tree.map(lambda *x: jnp.stack(x), first_metrics, second_metrics))])


def host(tried: Trial) -> Verdict:
    """Check that the compiled run calls no Python and needs no transfer from the host."""
    run, calls_back = tried.run()
    if calls_back:
        return "no", "the compiled program calls Python back"
    operands = tried.keys[0], tried.values[0]
    with jax.transfer_guard("disallow"):
        run(*operands)
    return "yes", "no callback in the compiled program, no transfer"


def devices(tried: Trial) -> Verdict:
    """Compare a round on all devices, each with its own queue of clients, with a round on one device."""
    if len(jax.devices()) == 1:
        return "not applicable", "there is one device"
    expected = tried.round(tried.state, tried.ids)
    with jax.set_mesh(mesh_of(jax.devices())):
        data, state, ids = everywhere((tried.data, tried.state, tried.ids))
        cohort = jax.jit(lambda *operands: _cohort(tried, *operands))(state, data.size, ids)
        actual = jax.jit(lambda *operands: tried.built.round(*operands))(state, data, cohort)
    verdict, evidence = agree([(actual, expected)])
    return verdict, f"{evidence}; {len(jax.devices())} devices"


def _cohort(tried: Trial, state: State, sizes: Any, ids: Any) -> Client:
    """Make the cohort of a state's round."""
    return cohort_of(tried.built, round_key(state), sizes, state.round, ids)


PROMISED = {
    "order of clients does not matter": order,
    "empty slots do not matter": empty_slots,
    "an empty cohort changes nothing": empty_cohort,
    "engines agree": engines,
    "other cohorts do not recompile": one_program,
    "state keeps its kind": structure,
    "metrics are float scalars": metrics,
    "jit equals eager": eager,
    "vmap equals the loop": mapped,
    "pieces equal the whole": pieces,
    "nothing touches the host": host,
    "several devices equal one": devices,
}
