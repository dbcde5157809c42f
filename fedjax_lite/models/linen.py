"""Models made of flax linen modules, with the running statistics that they carry."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_lite.base import Tree
from fedjax_lite.models.model import Model, WithStatistics, is_frozen, leaf_of, refuse_changing, usable

FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False}  # a call's flag -> its value in training


def from_linen(
    module: nn.Module,
    *,
    input: str = "x",
    flag: str | None = None,
    mask: str | None = None,
    head: Any = None,
    statistics: str = "averaged",
) -> Model:
    """Make a model of a flax linen module whose call is `module(x)` or `module(x, train=...)`.

    Args:
        module: the module; it may use the random stream "dropout", and keep running statistics ("batch_stats") beside its parameters: its
            leaves are then a `fl.models.WithStatistics`. Its `BatchNorm` layers leave out the copies that fill up a short last batch.
        input: the leaf of an example that is the module's input.
        flag: the argument of the module's call that turns training on; by default the argument named train, training, is_training or,
            the other way round, deterministic. An argument of another name is True in training.
        mask: the argument of the module's call that takes bool `[batch]`, False for the copies that fill up a short last batch, for a
            module that looks across the batch.
        head: the module's last layer, by the name of its parameters and as a module of its own, for instance
            `("Dense_2", nn.Dense(10))`: the inputs of this layer are the model's `features`.
        statistics: what training does with running statistics. "averaged": clients' batches change them, and the server takes the average
            (of variances: their mean, not the variance of all examples). "frozen": nothing changes them, and `BatchNorm` layers take
            them in training too. Clients keep their own with `fl.algorithms.fedbn`.

    Raises:
        ValueError: for a module of another library, or an argument that its call lacks; at the first call, for a module that keeps
            other state, and for a dropout layer that is off in training, or on in evaluation.

    >>> model = from_linen(nn.Dense(10))
    >>> jax.tree.map(jnp.shape, model.init(jax.random.key(0), {"x": jnp.zeros(64)}))
    {'bias': (10,), 'kernel': (64, 10)}
    """
    _check(module, flag, mask, head)
    takes = inspect.signature(module.__call__).parameters
    flags = {name: FLAGS.get(name, True) for name in takes if name == flag or (flag is None and name in FLAGS)}
    frozen = is_frozen("from_linen", statistics)

    def called(method: Callable, batch: Tree, training: bool, real: Any) -> Any:
        inputs = leaf_of(batch, "from_linen: input", input)
        real = jnp.ones(inputs.shape[0], bool) if real is None else real
        given = {name: value == training for name, value in flags.items()} | ({} if mask is None else {mask: real})
        with nn.intercept_methods(partial(_watched, _Watch(module, training, tuple(flags), real, frozen))):
            return method(inputs, **given)

    def init(key, example):
        leaf_of(example, "from_linen: input", input)
        variables = called(partial(module.init, key), {input: jnp.asarray(example[input])[None]}, False, None)
        if others := sorted(variables.keys() - {"params", "batch_stats"}):
            raise ValueError(f"the module keeps state beside its parameters ({others}): of such state, batch_stats alone can be averaged")
        params = variables.get("params", {})
        return WithStatistics(params, variables["batch_stats"]) if "batch_stats" in variables else params

    def apply(params, batch, key=None, mask=None):
        if key is not None and not frozen:
            refuse_changing(params)
        rngs = None if key is None else {"dropout": key}
        return called(partial(module.apply, _variables(params), rngs=rngs), batch, key is not None, mask)

    def train(params, batch, key, mask=None):
        method = partial(module.apply, _variables(params), rngs={"dropout": key}, mutable=["batch_stats"])
        outputs, after = called(method, batch, True, mask)
        return outputs, after["batch_stats"]

    model = Model(init, apply, train=None if frozen else train)
    return model if head is None else _in_two(model, *head)


def _check(module: Any, flag: Any, mask: Any, head: Any) -> None:
    """Refuse arguments of `from_linen` that are none, or that the module's call lacks."""
    if head is not None and not (isinstance(head, tuple) and list(map(type, head[:1])) == [str] and isinstance(head[-1], nn.Module)):
        raise ValueError(f'from_linen: head must be a name and a module, such as ("Dense_2", nn.Dense(10)), got {head!r}')
    if not isinstance(module, nn.Module):
        kind = f"{type(module).__module__}.{getattr(type(module), '__name__', module)}"
        raise ValueError(
            f"from_linen: module must be an instance of a flax.linen.Module, got {kind}: of another library write "
            "fl.models.Model(init, apply)"
        )
    takes = inspect.signature(module.__call__).parameters
    for argument, name in (("flag", flag), ("mask", mask)):
        if name is not None and name not in takes:
            whose = f"{type(module).__name__}, whose call takes {', '.join(takes)}"
            raise ValueError(f"from_linen: {argument}={name!r} is no argument of {whose}")


def _variables(params: Tree) -> dict[str, Tree]:
    """Return a model's leaves as flax's collections."""
    if not isinstance(params, WithStatistics):
        return {"params": params}
    return {"params": params.params, "batch_stats": usable(params.statistics)}


def _in_two(model: Model, name: str, layer: nn.Module) -> Model:
    """Split `model` before its last layer `name`: the inputs of that layer are the features, `layer` is the head."""

    def features(params, batch, key=None):
        calls: dict[str, tuple[jax.Array, Any]] = {}  # each layer's input and output

        def watch(following, args, kwargs, context):
            output = following(*args, **kwargs)
            if context.method_name == "__call__" and args and context.module.name is not None:
                calls[context.module.name] = args[0], output
            return output

        with nn.intercept_methods(watch):
            outputs = model.apply(params, batch, key)
        if name not in calls:
            raise ValueError(f"from_linen: head={name!r} is no layer that the module calls; there are {', '.join(calls)}")
        if calls[name][1] is not outputs:
            raise ValueError(f"from_linen: head={name!r} is not the last layer: the module changes what it gives")
        return calls[name][0]

    def head(params: Tree, features: jax.Array) -> Any:
        leaves = params.params if isinstance(params, WithStatistics) else params
        return layer.apply({"params": leaves[name]}, features)

    return model._replace(features=features, head=head)


class _Watch(NamedTuple):
    """What the layers of a module are held against while it is called."""

    top: nn.Module
    training: bool
    flags: tuple[str, ...]
    real: jax.Array  # bool [batch], False for copies
    frozen: bool


def _watched(watch: _Watch, following: Callable, args: Any, kwargs: Any, context: Any) -> Any:
    """Call a layer; refuse one that does not follow the module's flag, and give batch normalisation the examples that are real."""
    layer = context.module
    if context.method_name != "__call__":
        return following(*args, **kwargs)
    if isinstance(layer, nn.BatchNorm):
        return _normalised(watch, layer, following, *args, **kwargs)
    rate = getattr(layer, "rate", None) if isinstance(layer, nn.Dropout) else getattr(layer, "dropout_rate", None)
    if isinstance(rate, int | float) and rate > 0 and hasattr(layer, "deterministic"):
        given = inspect.signature(layer.__call__).bind_partial(*args, **kwargs).arguments.get("deterministic")
        off = layer.deterministic if given is None else given
        if off is not None and bool(off) == watch.training:
            drops = f"drops out at {rate}, and is {'off in training' if watch.training else 'on in evaluation'}"
            raise ValueError(_unheard(watch, layer, drops, "make the rate 0"))
    return following(*args, **kwargs)


def _normalised(
    watch: _Watch, layer: nn.BatchNorm, following: Callable, x: Any, average: Any = None, *, mask: Any = None, **more: Any
) -> Any:
    """Call a layer of batch normalisation: of the real examples of a batch, or, frozen, by its running statistics."""
    average = more.pop("use_running_average", average)
    of_running = layer.use_running_average if average is None else average
    if watch.frozen:
        object.__setattr__(layer, "use_running_average", None)  # of this call's copy of the layer; flax takes one of the two
        return following(x, True)
    if of_running is not None and bool(of_running) == watch.training:
        takes = "takes its running statistics in training" if watch.training else "changes them in evaluation"
        raise ValueError(_unheard(watch, layer, takes, 'give from_linen(..., statistics="frozen")'))
    if mask is None and x.shape[0] == watch.real.shape[0]:
        some = watch.real | ~jnp.any(watch.real)  # of an empty slot all, rather than 0 / 0
        mask = some.reshape(-1, *[1] * (x.ndim - 1))
    return following(x, average, mask=mask)


def _unheard(watch: _Watch, layer: nn.Module, does: str, otherwise: str) -> str:
    """Say that a layer does not hear the flag of the module's call."""
    found = f"flag {', '.join(watch.flags)}" if watch.flags else f"no flag among {', '.join(FLAGS)}"
    whose = f"the layer {layer.name or type(layer).__name__} of {type(watch.top).__name__}"
    return f"from_linen: {whose} {does}: its call has {found}; name the argument that turns it on as flag, or {otherwise}"
