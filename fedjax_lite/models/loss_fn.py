"""The contract of loss functions: they return losses and metrics of each example, which the library masks and averages."""

import inspect
from collections.abc import Callable, Set
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from fedjax_lite.base import Batch, Key, Mean, Tree
from fedjax_lite.metrics import OF_WORK, check_names
from fedjax_lite.models.model import WithStatistics

# params, batch, key -> losses [batch], or (losses, {name: values [batch]}), or (losses, {...}, statistics), what the running statistics of
# a `WithStatistics` become. A loss or a metric over some examples only is a fl.Mean(total [batch], count [batch]). Arguments named in
# BESIDE are given by keyword.
LossFn = Callable[..., Any]
BESIDE = {"mask", "row", "shared", "own", "client", "round", "epoch"}  # further arguments that a loss function may take, by keyword


def call_loss(loss_fn: LossFn, params: Tree, examples: Tree, key: Key | None, **beside: Any) -> Any:
    """Call `loss_fn` on a batch, with the arguments of `BESIDE` that it takes from `beside`; None for a missing one."""
    try:
        return loss_fn(params, examples, key, **{name: beside.get(name) for name in facts_asked(loss_fn)})
    except KeyError as error:
        if not isinstance(examples, dict) or error.args[0] in examples:
            raise
        raise ValueError(f"loss_fn asks for the leaf {error}, and the examples have {', '.join(map(repr, examples))}") from error


def facts_asked(function: Callable) -> set[str]:
    """Return the names in `BESIDE` among a function's arguments; none for a function without a signature, as some written in C."""
    try:
        return BESIDE & inspect.signature(function).parameters.keys()
    except ValueError:
        return set()


def with_facts(function: LossFn, facts: Set[str]) -> LossFn:
    """Give a loss function written with `**beside` the signature of one that takes these facts."""
    named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("params", "batch", "key")]
    named += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in sorted(facts)]
    setattr(function, "__signature__", inspect.Signature(named))
    return function


def facts_for(function: Callable, **facts: Any) -> dict[str, Any]:
    """Return the `facts` that a function has arguments for."""
    return {name: facts[name] for name in facts.keys() & facts_asked(function)}


def bound(loss_fn: LossFn, **facts: Any) -> LossFn:
    """Fill in the arguments of `loss_fn` that `facts` holds."""
    facts = facts_for(loss_fn, **facts)
    return wraps(loss_fn)(lambda params, examples, key, **beside: loss_fn(params, examples, key, **beside | facts)) if facts else loss_fn


def values_of(
    loss_fn: LossFn, params: Tree, examples: Tree, key: Key | None, mask: Bool[Array, " batch"], **beside: Any
) -> dict[str, Mean]:
    """Return the loss and every metric of each example, `[batch]`, in at least float32: half precision is too coarse for sums."""
    return _values(call_loss(loss_fn, params, examples, key, mask=mask, **beside), mask.shape)


def _values(output: Any, shape: tuple[int, ...]) -> dict[str, Mean]:
    """Return the values that a loss function gives of a batch of this shape."""
    losses, values, *_ = losses_and_metrics(output)
    check_names(values, "loss_fn", OF_WORK)
    kind = jnp.result_type(jax.tree.leaves(losses)[0])
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"loss_fn must return floating-point losses, got {kind}: whole numbers have no gradient")
    values = {"loss": losses, **values}
    for name, value in values.items():
        for part in value if isinstance(value, Mean) else (value,):
            if jnp.shape(part) != shape:
                raise ValueError(
                    f"loss_fn must return one {name} an example, shape {shape}, got {jnp.shape(part)}: "
                    "do not reduce over the batch; masking and the mean are taken by the library"
                )
    return {name: _wide_mean(value) for name, value in values.items()}


def of_one_model(loss_fn: Any) -> Any:
    """Return the loss of one model, where `loss_fn` is the mean over several and knows theirs, in its attribute `of_one`."""
    return getattr(loss_fn, "of_one", loss_fn)


def losses_and_metrics(output: Any) -> tuple[Any, ...]:
    """Split a loss function's output into losses, an array or a `Mean`, metrics by name, and, where it has some, running statistics.

    Raises:
        TypeError: for an output of another form.
    """
    bare = isinstance(output, Mean) or not isinstance(output, tuple)
    losses, values, *statistics = (output, {}) if bare else output if len(output) in (2, 3) else (None, None)
    if not isinstance(values, dict) or not (isinstance(losses, Mean) or hasattr(losses, "shape")):
        raise TypeError(
            f"loss_fn must return losses [batch], or (losses, {{name: values [batch]}}), got {jax.tree.map(jnp.shape, output)}: "
            "give each metric a name"
        )
    return losses, values, *statistics


def _check_statistics(statistics: list[Tree], params: Tree) -> None:
    """Refuse running statistics that are not those of the model.

    Raises:
        TypeError: naming the leaves of both.
    """
    own = [params.statistics] if isinstance(params, WithStatistics) else []
    if statistics and str(jax.tree.structure(statistics)) != str(jax.tree.structure(own)):
        has = f"has {jax.tree.map(jnp.shape, own[0])}" if own else "is no fl.models.WithStatistics"
        raise TypeError(f"loss_fn returns as running statistics, third, {jax.tree.map(jnp.shape, statistics[0])}, and the model {has}")


def _wide_mean(value: Any) -> Mean:
    """Return a value of each example as a `Mean` in at least float32; an array has count 1 for each example."""
    total, count = value if isinstance(value, Mean) else (value, None)
    total = jnp.asarray(total, jnp.promote_types(jnp.result_type(total), jnp.float32))
    return Mean(total, jnp.ones_like(total) if count is None else jnp.asarray(count, total.dtype))


STATISTICS = "statistics"  # where `mean_loss` leaves, among the sums, what running statistics become


def mean_loss(loss_fn: LossFn, params: Tree, batch: Batch, key: Key) -> tuple[Array, dict[str, Any]]:
    """Return the mean loss over a batch's real examples, and totals and counts of the loss and every metric."""
    facts = {"row": batch.row, "client": batch.client, "round": batch.round, "epoch": batch.epoch}
    output = call_loss(loss_fn, params, batch.examples, key, mask=batch.mask, **facts)
    _, _, *statistics = losses_and_metrics(output)
    _check_statistics(statistics, params)
    sums = jax.tree.map(lambda value: jnp.sum(jnp.where(batch.mask, value, 0)), _values(output, batch.mask.shape))
    total, count = sums["loss"]
    return total / jnp.where(count > 0, count, 1), sums | {STATISTICS: after for after in statistics}


# loss_fn, params, batch, key -> ((mean loss, sums), gradient): what `mean_loss` returns, and the gradient by the parameters.
loss_and_gradient = jax.value_and_grad(mean_loss, argnums=1, has_aux=True)
