"""Checks of the properties that the contract requires of an aggregator, a function for each."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Client
from fedjax_lite.checks.answers import Verdict, failed
from fedjax_lite.checks.probe import Probe, compare, flat, largest, take, vectors

GARBAGE = (np.nan, np.inf, -np.inf, 1e30)  # values in empty slots
MANY = 80  # equal messages whose sum is far off in bfloat16 and whose total weight overflows float16


def order(built: Probe) -> Verdict:
    """Permute the slots together with their clients: nothing may change."""
    clients, rng = len(built.messages), np.random.default_rng(0)
    expected = built.outcome(built.messages, built.varied)
    orders = [np.arange(clients)[::-1], np.roll(np.arange(clients), 1), *(rng.permutation(clients) for _ in range(3))]
    return compare(built, [pair for i in orders for pair in zip(built.outcome(built.messages[i], take(built.varied, i)), expected)])


def empty_slots(built: Probe) -> Verdict:
    """Add empty slots before, between and after the clients, with zeros or garbage: nothing may change."""
    clients = len(built.messages)
    expected = built.outcome(built.messages, built.varied)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for value in (0.0, *GARBAGE):
        rows, cohort = with_empty(built, value)
        pairs += zip(built.outcome(rows, cohort), expected)
    verdict, evidence = compare(built, pairs)
    return verdict, f"{evidence}; {clients} clients in {len(rows)} slots"


def with_empty(built: Probe, value: float) -> tuple[np.ndarray, Client]:
    """Insert five empty slots, filled with `value`, into the messages and their cohort."""
    clients = len(built.messages)
    places = np.array([0, 1, clients // 2, clients, clients])
    index = np.insert(np.arange(clients), places, 0)
    absent = np.insert(np.zeros(clients, bool), places, True)
    cohort = take(built.varied, index)
    rows = np.where(absent[:, None], built.messages.dtype.type(value), built.messages[index])
    return rows, cohort._replace(weight=jnp.where(absent, 0, cohort.weight))


def no_clients(built: Probe) -> Verdict:
    """Empty every slot: the aggregate must be 0, also where slots hold NaN."""
    nobody = built.equal._replace(weight=jnp.zeros_like(built.equal.weight))
    gap = max(largest(built.result(rows, nobody)) for rows in (built.messages, np.full_like(built.messages, np.nan)))
    return ("yes" if gap == 0 else "no"), ("the aggregate is not finite" if np.isinf(gap) else f"largest coordinate {gap:.1g}")


def compiled(built: Probe) -> Verdict:
    """Compare the compiled call with the rule run operation by operation."""
    operands = (built.stack(built.messages), built.varied, built.state, built.key)
    return compare(built, zip(vectors(jax.jit(built.eager)(*operands)), built.stepwise()))


def pure(built: Probe) -> Verdict:
    """Call the rule twice, operation by operation, so that side effects in Python show."""
    first = built.stepwise()
    return compare(built, zip(vectors(built.eager(built.stack(built.messages), built.varied, built.state, built.key)), first))


def mapped(built: Probe) -> Verdict:
    """Compare three vmapped stacks with each stack alone."""
    stacks = [built.messages, 2 * built.messages, built.messages[::-1] - 1]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(built.stack(rows) for rows in stacks))
    together = jax.jit(jax.vmap(lambda stack: (*built.eager(stack, built.varied, built.state, built.key)[:2], {})))(stacked)
    pairs = [pair for i, rows in enumerate(stacks) for pair in zip(vectors(take(together, i)), built.outcome(rows, built.varied))]
    return compare(built, pairs)


def like_a_message(built: Probe) -> Verdict:
    """Compare structure, shapes and dtypes of aggregate and message; half precision may come back wider, never narrower."""
    full = built.messages.dtype
    for dtype in (full, jnp.bfloat16, jnp.float16):
        stack = built.stack(built.messages, dtype)
        aggregate = jax.eval_shape(built.eager, stack, built.equal, built.state, built.key)[0]
        message = jax.eval_shape(lambda stack: jax.tree.map(lambda x: x[0], stack), stack)
        if jax.tree.structure(aggregate) != jax.tree.structure(message):  # type: ignore[operator]
            return "no", f"{jax.tree.structure(aggregate)} instead of {jax.tree.structure(message)}"
        for a, m in zip(jax.tree.leaves(aggregate), jax.tree.leaves(message)):
            wide = jnp.promote_types(a.dtype, m.dtype) == a.dtype and jnp.issubdtype(a.dtype, jnp.floating)
            if a.shape != m.shape or not wide or (m.dtype == full and a.dtype != m.dtype):
                return "no", f"{kind(a)} for messages of {kind(m)}"
    return "yes", f"{full}, bfloat16, float16"


def half_precision(built: Probe) -> Verdict:
    """Compare half with full precision on the same rounded values: a few different messages, and many equal messages."""
    many = take(built.equal, np.resize(np.arange(len(built.messages)), MANY))._replace(size=np.full(MANY, 1000, np.int32))
    few = many._replace(weight=np.where(np.arange(MANY) < len(built.messages), many.weight, 0))  # one program for both
    some, same = (np.resize(rows, (MANY, rows.shape[1])) for rows in (built.messages, built.messages[:1] * 100))
    worst = 0.0
    for dtype in (jnp.bfloat16, jnp.float16):
        for rows, cohort in ((some, few), (same, many)):
            rounded = np.asarray(np.asarray(rows, dtype), built.messages.dtype)
            actual, expected = built.result(rounded, cohort, dtype=dtype), built.result(rounded, cohort)
            verdict, evidence = compare(built, [(actual, expected)], relative=2 * float(jnp.finfo(dtype).eps))
            if verdict == "no" and np.isfinite(actual).all() and draws(built):
                return "not applicable", "it draws from its key, in another way for another dtype"
            if verdict == "no":
                return verdict, f"{evidence}; {len(rows)} messages in {jnp.dtype(dtype).name}"
            worst = max(worst, largest(actual - expected) / max(largest(expected), 1e-30))
    return "yes", f"largest relative difference {worst:.1g}"


def draws(built: Probe) -> bool:
    """Return whether the aggregate depends on the key."""
    expected = built.result(built.messages)
    others = [built.result(built.messages, key=jax.random.fold_in(built.key, i)) for i in range(3)]
    return compare(built, [(other, expected) for other in others])[0] == "no"


def grouping(built: Probe) -> Verdict:
    """Join the parts of groups, one a single client, one empty slots only, and compare with the whole cohort."""
    rows, cohort = with_empty(built, np.nan)
    empty = np.flatnonzero(np.asarray(cohort.weight) == 0)
    rest = np.setdiff1d(np.arange(len(rows)), empty[:2])
    cuts = (0, len(rest) // 3, len(rest) // 3 + 1, len(rest), len(rows))
    additive = built.rule.additive

    def parts(stack, cohort):
        groups = (jax.tree.map(lambda x: x[a:b], (stack, cohort)) for a, b in itertools.pairwise(cuts))  # noqa: B023
        return [built.rule.collect(messages, clients, built.state) for messages, clients in groups]

    @built.compiled
    def whole(stack, cohort):
        join = (lambda *x: sum(x[1:], x[0])) if additive else (lambda *x: jnp.concatenate(x))
        return built.rule.finish(jax.tree.map(join, *parts(stack, cohort)), built.state, built.key)

    shapes = jax.eval_shape(parts, built.stack(rows), cohort)
    if additive and len(distinct := {str(jax.tree.map(lambda x: x.shape, part)) for part in shapes}) > 1:
        return "no", f"additive=True, but parts of groups differ in shape: {sorted(distinct)[0][:100]}"
    if not additive and not all(x.ndim for x in jax.tree.leaves(shapes)):
        return "no", "additive=False, but a part holds a number, and numbers do not concatenate"
    expected = built.outcome(built.messages, built.varied)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for order in (rest, rest[::-1]):
        index = np.append(order, empty[:2])
        pairs += zip(vectors(whole(built.stack(rows[index]), take(cohort, index))), expected)
    verdict, evidence = compare(built, pairs)
    return verdict, f"{evidence}; parts {'add' if additive else 'concatenate'}"


def state(built: Probe) -> Verdict:
    """Compare structure, shapes, dtypes and weak types of the state over two rounds."""
    before = jax.eval_shape(lambda: built.state)
    stack, now = built.stack(built.messages), before
    for round in (1, 2):
        now = jax.eval_shape(built.eager, stack, built.equal, now, built.key)[1]
        if jax.tree.structure(now) != jax.tree.structure(before):  # type: ignore[operator]
            return "no", f"after round {round} {jax.tree.structure(now)}, before {jax.tree.structure(before)}"
        for a, b in zip(jax.tree.leaves(now), jax.tree.leaves(before)):
            if kind(a) != kind(b):
                return "no", f"after round {round} {kind(a)}, before {kind(b)}"
    leaves = len(jax.tree.leaves(before))
    return "yes", f"{leaves} arrays" if leaves else "no state"


def kind(x: jax.ShapeDtypeStruct) -> str:
    """Describe dtype and shape of `x`, as in "float32[3,2] (weak)"."""
    return f"{x.dtype}[{','.join(map(str, x.shape))}]{' (weak)' if getattr(x, 'weak_type', False) else ''}"


def metrics(built: Probe) -> Verdict:
    """Check that the metrics are a dictionary of float scalars."""
    reported = jax.eval_shape(built.eager, built.stack(built.messages), built.equal, built.state, built.key)[2]
    if not isinstance(reported, dict):
        return "no", f"a {type(reported).__name__} instead of a dict"
    for name, x in reported.items():
        if not isinstance(name, str) or not hasattr(x, "shape") or x.shape != () or not jnp.issubdtype(x.dtype, jnp.floating):
            return "no", f"{name!r} is {kind(x) if hasattr(x, 'shape') else type(x).__name__}"
    return "yes", ", ".join(reported) or "none"


def host(built: Probe) -> Verdict:
    """Check that the compiled program calls no Python."""
    text = jax.jit(built.eager).lower(built.stack(built.messages), built.equal, built.state, built.key).as_text()
    return ("no", "the compiled program calls Python back") if "callback" in text else ("yes", "no callback in the compiled program")


def gradient(built: Probe) -> Verdict:
    """Differentiate the aggregate's sum of squares: of plain messages, an empty slot of NaN, zeros, equal messages."""

    def squares(stack, cohort):
        return sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(built.eager(stack, cohort, built.state, built.key)[0]))

    slope = jax.jit(jax.grad(squares))
    one_empty = built.equal._replace(weight=built.equal.weight.at[1].set(0))
    with_nan, equal = built.messages.copy(), np.repeat(built.messages[:1], len(built.messages), axis=0)
    with_nan[1] = np.nan
    cases = {
        "": (built.messages, built.equal),
        " with an empty slot of NaN": (with_nan, one_empty),
        " with all messages zero": (0 * built.messages, built.equal),
        " with all messages equal": (equal, built.equal),
    }
    most = 0.0
    for case, (rows, cohort) in cases.items():
        try:
            steepest = largest(flat(slope(built.stack(rows), cohort)))
        except Exception as error:
            return "no", failed(error)[1]
        if np.isinf(steepest):
            return "no", f"not finite{case}"
        most = max(most, steepest)
    return "yes", f"largest slope {most:.1g}"


REQUIRED = {
    "order of clients does not matter": order,
    "empty slots do not matter": empty_slots,
    "no clients give zero": no_clients,
    "jit equals eager": compiled,
    "called twice, the same": pure,
    "vmap equals the loop": mapped,
    "shape and dtype of a message": like_a_message,
    "half precision loses nothing": half_precision,
    "any grouping of clients": grouping,
    "state keeps its kind": state,
    "metrics are float scalars": metrics,
    "nothing touches the host": host,
    "finite gradient": gradient,
}
