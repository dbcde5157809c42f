"""The tuple `Model`, models made of flax modules, and small networks."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_lite.base import Key, Tree, Whole
from fedjax_lite.refuse import a_count


class Model(NamedTuple):
    """A model as two pure functions."""

    init: Callable[[Key, Tree], Tree]  # key, one example without a batch axis -> params
    # params, batch of examples, key -> outputs [batch, ...]; key None: evaluation. An argument `mask` is given the loss function's mask.
    apply: Callable[..., jax.Array]
    # For a model in two parts, where `apply` is `head` after `features`:
    features: Callable[[Tree, Tree, Key | None], jax.Array] | None = None  # params, batch of examples, key -> features [batch, ...]
    head: Callable[[Tree, jax.Array], jax.Array] | None = None  # params, features -> outputs [batch, ...]; both take the whole params


def in_two(function: str, model: Model) -> tuple[Callable, Callable]:
    """Return a model's features and head.

    Raises:
        ValueError: for a model that lacks one of them; names `function`.
    """
    if model.features is None or model.head is None:
        raise ValueError(f"{function}: the model has no features apart from its head: give both to fl.models.Model, or take another model")
    return model.features, model.head


FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False}  # a call's flag -> its value in training


def from_linen(module: nn.Module, *, input: str = "x", flag: str | None = None, mask: str | None = None, head: Any = None) -> Model:
    """Make a model of a flax linen module whose call is `module(x)` or `module(x, train=...)`.

    Args:
        module: the module; it may use the random stream "dropout", and must keep no state beside its parameters
            (batch statistics of clients have no meaning for a server; use GroupNorm or LayerNorm).
        input: the leaf of an example that is the module's input.
        flag: the argument of the module's call that turns training on; by default the argument named train, training, is_training or,
            the other way round, deterministic. An argument of another name is True in training.
        mask: the argument of the module's call that takes bool `[batch]`, False for the copies that fill up a short last batch, for a
            module that looks across the batch.
        head: the module's last layer, by the name of its parameters and as a module of its own, for instance
            `("Dense_2", nn.Dense(10))`: the inputs of this layer are the model's `features`.

    Raises:
        ValueError: for a module of another library, or an argument that its call lacks; at the first call, for a module that keeps
            state, and for a dropout layer that is off in training, or on in evaluation.

    >>> model = from_linen(nn.Dense(10))
    >>> jax.tree.map(jnp.shape, model.init(jax.random.key(0), {"x": jnp.zeros(64)}))
    {'bias': (10,), 'kernel': (64, 10)}
    """
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
    flags = {name: FLAGS.get(name, True) for name in takes if name == flag or (flag is None and name in FLAGS)}

    def called(method: Callable, batch: Tree, training: bool, **others: Any) -> Any:
        inputs = leaf_of(batch, "from_linen: input", input)
        with nn.intercept_methods(partial(_watched, module, training, tuple(flags))):
            return method(inputs, **{name: value == training for name, value in flags.items()}, **others)

    def init(key, example):
        leaf_of(example, "from_linen: input", input)
        batch = {input: jnp.asarray(example[input])[None]}
        real = {} if mask is None else {mask: jnp.ones(1, bool)}
        variables = called(partial(module.init, key), batch, False, **real)
        if set(variables) - {"params"}:
            raise ValueError(
                f"the module keeps state beside its parameters ({sorted(set(variables) - {'params'})}): use GroupNorm or LayerNorm"
            )
        return variables.get("params", {})

    def apply(params, batch, key=None, **others):
        rngs = None if key is None else {"dropout": key}
        return called(partial(module.apply, {"params": params}, rngs=rngs), batch, key is not None, **others)

    def apply_to_some(params, batch, key=None, mask=None):
        real = jnp.ones(len(leaf_of(batch, "from_linen: input", input)), bool) if mask is None else mask
        return apply(params, batch, key, **{named: real})

    named = mask or ""
    model = Model(init, apply if mask is None else apply_to_some)
    return model if head is None else _in_two(model, *head)


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
        return layer.apply({"params": params[name]}, features)

    return model._replace(features=features, head=head)


def _watched(top: nn.Module, training: bool, flags: tuple[str, ...], following: Callable, args: Any, kwargs: Any, context: Any) -> Any:
    """Call a layer; refuse a dropout layer that does not follow the module's flag."""
    layer = context.module
    rate = getattr(layer, "rate", None) if isinstance(layer, nn.Dropout) else getattr(layer, "dropout_rate", None)
    if context.method_name == "__call__" and isinstance(rate, int | float) and rate > 0 and hasattr(layer, "deterministic"):
        given = inspect.signature(layer.__call__).bind_partial(*args, **kwargs).arguments.get("deterministic")
        off = layer.deterministic if given is None else given
        if off is not None and bool(off) == training:
            state = "off in training" if training else "on in evaluation"
            found = f"flag {', '.join(flags)}" if flags else f"no flag among {', '.join(FLAGS)}"
            raise ValueError(
                f"from_linen: the layer {layer.name or type(layer).__name__} of {type(top).__name__} drops out at {rate}, and is {state}: "
                f"its call has {found}; name the argument that turns it on as flag, or make the rate 0"
            )
    return following(*args, **kwargs)


def leaf_of(examples: Tree, argument: str, name: str) -> Any:
    """Return the leaf `name` of examples.

    Raises:
        ValueError: for examples without that leaf; names their leaves and the `argument` that asks for the leaf.
    """
    if not isinstance(examples, Mapping) or name not in examples:
        there = f"has the leaves {', '.join(map(str, examples))}" if isinstance(examples, Mapping) else "has no leaves by name"
        raise ValueError(f"{argument}={name!r} is no leaf of the examples: one {there}")
    return examples[name]


class _MLP(nn.Module):
    hidden: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)


def mlp(hidden: Sequence[Whole] = (200, 200), *, classes: Whole = 10) -> Model:
    """Fully connected ReLU layers and a linear output: `mlp((200, 200))` is McMahan's 2NN, `mlp(())` softmax regression.

    Args:
        hidden: width of each hidden layer.
        classes: outputs.

    >>> import fedjax_lite as fl
    >>> params = jax.eval_shape(fl.models.mlp((200, 200)).init, jax.random.key(0), {"x": jnp.zeros(784)})
    >>> sum(x.size for x in jax.tree.leaves(params))
    199210
    """
    widths, outputs = tuple(a_count("mlp", "hidden", width) for width in hidden), a_count("mlp", "classes", classes)
    return from_linen(_MLP(widths, outputs), head=(f"Dense_{len(widths)}", nn.Dense(outputs)))


class _Linear(nn.Module):
    outputs: int
    bias: bool

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs, use_bias=self.bias, kernel_init=nn.initializers.zeros)(x.reshape(x.shape[0], -1))


def linear(outputs: Whole = 1, *, bias: bool = True) -> Model:
    """Linear regression from zero: y = x W + b, outputs `[batch, outputs]`.

    >>> import fedjax_lite as fl
    >>> model = fl.models.linear(2)
    >>> params = model.init(jax.random.key(0), {"x": jnp.zeros(3)})
    >>> jax.tree.map(jnp.shape, params), model.apply(params, {"x": jnp.ones((1, 3))}).tolist()
    ({'Dense_0': {'bias': (2,), 'kernel': (3, 2)}}, [[0.0, 0.0]])
    """
    return from_linen(_Linear(a_count("linear", "outputs", outputs), bias))
